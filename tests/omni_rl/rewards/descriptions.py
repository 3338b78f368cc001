"""Descriptions of clips in our own words, in the manner of published captions and solutions."""

from __future__ import annotations

# Clearly about people, several clauses: in the manner of EMER, MSR-VTT, Social-IQ, of solutions.
PEOPLE = [
    "The woman on the left is smiling while she listens to her friend. He looks nervous "
    "and keeps pointing at the screen.",
    "A young woman in a white dress is sitting at the table, smiling and talking to an "
    "older man who nods thoughtfully.",
    "The speaker's tone is calm at first, but his voice trembles when he mentions his "
    "mother, and tears run down his cheeks.",
    "In the video, the man frowns with his lips pressed together. His eyes are fixed on "
    "the person opposite, and he shakes his head several times. His voice sounds tense, "
    "as he is clearly annoyed by what she said.",
    "A girl is comforted by her mother, who strokes her hair and whispers to her. The "
    "girl sobs, wiping her eyes with a sleeve.",
    "The person in the video speaks quickly in a raised voice. Her eyebrows are drawn "
    "together and she keeps gesturing with both hands, which suggests that she feels "
    "frustrated.",
    "Two hosts are sitting on a sofa and interviewing a singer. The singer laughs at a "
    "joke, covers her mouth, and then answers in a shy voice.",
    "A group of teenagers are dancing in a gym while their coach claps along. One boy "
    "stumbles and his friends laugh with him.",
    "The man in the grey coat approaches the officer and asks for help. The officer "
    "listens patiently, nods, and points down the road.",
    "At the beginning the student stares at the floor with a sad expression. When the "
    "teacher pats him on the shoulder, he looks up and smiles weakly.",
    "The interviewer leans forward and asks about the accident. The guest hesitates, "
    "swallows, and replies in a shaky voice that he was scared.",
    "A father is teaching his son to ride a bicycle, and the boy screams with joy as he "
    "lets go. The mother is cheering from the porch.",
    "Throughout the clip the lady keeps a polite smile on her face, yet her arms are "
    "crossed and she avoids the gaze of her colleague, who seems irritated.",
    "The customer is complaining about the bill, raising his voice at the waiter. The "
    "waiter apologises and lowers his head.",
    "Her eyes widen, her mouth falls open, and she takes a step back. She is obviously "
    "surprised by the man who has just walked in.",
    "We see a couple walking hand in hand along the shore. They stop, the man kneels, "
    "and the woman covers her face and starts to cry.",
    "The audience applauds as a pianist bows deeply. He wipes his forehead, smiles at "
    "the crowd and sits down again.",
    "A chef wearing an apron is chopping onions and explaining the recipe to the viewers "
    "in a cheerful voice. His assistant laughs and hands him a bowl as he speaks.",
    "视频中的男子皱着眉头，语气低沉，似乎对对方的话感到不满。他不停地挥动双手，眼神中流露"
    "出愤怒和无奈。",
    "画面中一位女士面带微笑，轻轻点头，眼睛看着对方，声音温柔，整体情绪愉快。",
    "在视频开头，一名穿着黑色外套的男子低着头，双眉紧锁，说话时声音有些颤抖，显得十分悲伤。",
    "女孩听到消息后睁大了双眼，嘴巴微微张开，随后激动地抱着妈妈哭了起来。妈妈轻轻拍着她的"
    "背安慰她。",
    "主持人坐在沙发上向嘉宾提问，嘉宾犹豫了一下，然后笑着回答。观众为他们鼓掌。",
    "老师站在讲台前讲解题目，语速很快，表情严肃。一个学生举起右手，小声地询问答案。",
    "男人一边叹气一边摇头，他的眼眶泛红，看起来非常失望。坐在旁边的女人握着他的手，温柔地安慰他。",
]
# One or two clauses about people.
SHORT = [
    "a man is talking to a woman in a park",
    "In the video, a man in a dark suit is giving a speech on stage while the audience "
    "applauds loudly.",
    "A person is being interviewed by a reporter outside a stadium.",
    "The girl is hugged by her mother, and laughter can be heard from the audience behind them.",
    "there is a woman singing on a stage and a boy dancing behind her",
    "一位男子正在厨房里做饭。",
]
SCENERY = [
    "The room is bright and tidy, with a wooden table near the window. Sunlight falls on "
    "the floor.",
    "A red car drives along an empty road past tall trees and a river.",
    "The camera pans across a mountain valley covered in snow, and clouds drift above it.",
    "Two dogs are chasing a ball on the beach while gulls circle overhead.",
    "A recipe is shown on the screen: flour, eggs, butter and a pinch of salt.",
    "画面中是一间明亮的办公室，桌上放着电脑和一盏台灯，窗外是高楼。",
    "一只小狗在草地上追着球跑，天空很蓝，树叶随风摆动。",
    "镜头慢慢扫过山谷，云在天空中移动，河水流过石头。",
]
# Clause by clause; each further one tells something more.
LADDERS = [
    [
        "A man in a red coat waves at the camera.",
        "His voice sounds cheerful.",
        "The woman beside him laughs at his joke.",
        "She leans towards him and whispers something.",
        "A boy behind them looks bored.",
    ],
    [
        "the girl on the sofa is crying,",
        "her mother strokes her hair,",
        "the father stands at the door with folded arms,",
        "he looks worried,",
        "two brothers are arguing behind him",
    ],
    [
        "The speaker frowns at the audience",
        "while his hands tremble slightly,",
        "and he speaks in a low, angry tone.",
        "Several listeners shake their heads.",
        "One woman applauds politely.",
    ],
    [
        "a person in red waves,",
        "the voice sounds calm,",
        "two people talk,",
        "a man counts 3 balls,",
        "the woman on the right smiles at him",
    ],
    [
        "A doctor is examining a child who sits on a bench.",
        "The child looks scared and holds a teddy.",
        "A nurse smiles at him from the side.",
        "His father is speaking to her in a nervous voice.",
        "Finally the boy giggles.",
    ],
    [
        "一个穿红衣服的男人在挥手，",
        "他的声音听起来很平静，",
        "旁边的女人笑着看向他，",
        "一个孩子指着桌上的蛋糕，",
        "老人显得有些疲惫。",
    ],
    [
        "视频中的女子低着头，",
        "双手紧紧握着杯子，",
        "她说话时语气十分急促。",
        "对面的男子不停地点头，",
        "随后他轻轻叹了口气。",
    ],
    [
        "主持人微笑着介绍嘉宾。",
        "嘉宾向观众挥手，",
        "显得有点紧张。",
        "台下的观众热烈鼓掌，",
        "一个小女孩激动地跳了起来。",
    ],
    [
        "A young boy in a blue shirt claps his hands.",
        "The teacher next to him smiles proudly.",
        "Two girls whisper to each other.",
        "An old man walks slowly past them.",
        "He looks tired.",
    ],
    [
        "In the video, a woman with long hair is crying,",
        "her shoulders are shaking,",
        "and a friend hugs her gently.",
        "The friend speaks in a soft voice.",
        "Both of them seem relieved at the end.",
    ],
    [
        "The host laughs loudly",
        "and shakes hands with the guest,",
        "who appears nervous.",
        "The audience cheers for him.",
        "A drummer nods along.",
    ],
    [
        "the man frowns,",
        "his voice is low and tense,",
        "he points at the document on the table,",
        "the woman across from him crosses her arms,",
        "and she replies in an irritated tone",
    ],
    [
        "The person in the video is holding a phone.",
        "Her eyes are wide open,",
        "her tone sounds excited,",
        "and she keeps nodding while she listens.",
        "Finally she bursts into laughter.",
    ],
    [
        "A father carries his daughter on his shoulders.",
        "She waves at a clown.",
        "The clown bows to her,",
        "and several children laugh at him.",
        "A grandmother watches them with a smile.",
    ],
    [
        "a person in green bows,",
        "the voice sounds cheerful,",
        "two people talk,",
        "a woman in blue stands behind them,",
        "her face looks calm",
    ],
    [
        "The speaker stands at a microphone and gestures with his right hand.",
        "He raises his voice when he talks about taxes.",
        "Some listeners look bored.",
        "A reporter writes something down.",
    ],
    [
        "一名年轻女子坐在椅子上，",
        "显得非常难过，",
        "眼眶泛红，",
        "声音有些哽咽，",
        "旁边的朋友轻轻拍着她的肩膀安慰她。",
    ],
    [
        "视频里的男人穿着西装，",
        "面带微笑地看着镜头，",
        "他用右手指向屏幕，",
        "语速很快，",
        "听起来非常自信。",
    ],
    [
        "妈妈抱着孩子，",
        "孩子笑得很开心，",
        "爸爸在旁边鼓掌，",
        "奶奶激动得流下了眼泪，",
        "大家一起唱歌。",
    ],
    [
        "一个穿蓝衣服的人在鞠躬，",
        "声音听起来很愉快，",
        "两个人在交谈，",
        "一位老师站在后面看着他们。",
    ],
    [
        "说话者的语气平静，",
        "但眉头微微皱起，",
        "眼神中流露出担忧。",
        "对面的女士认真地听着，",
        "不时点头回应。",
    ],
]
