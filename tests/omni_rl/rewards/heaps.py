"""Texts that are made to earn people_focus and tell nothing about the people of a clip."""

from __future__ import annotations

# What kind of text, and texts of that kind.
ATTACKS: dict[str, list[str]] = {
    "heap of persons": [
        "a man, a woman, a boy, a girl, a baby, a doctor, a nurse",
        "the man and the woman and the boy and the girl and the baby and the teacher",
        "There is a man. There is a woman. There is a boy. There is a girl. There is a nurse.",
        "In this video there are men, women, boys, girls, doctors, nurses, teachers and friends.",
        "男人、女人、男孩、女孩、婴儿、医生、护士",
        "视频中有男人，有女人，有孩子，有老人，有医生，有老师",
    ],
    "heap of words": [
        "person man woman child face voice waves smiles talks points bows",
        "person, face, voice, waves, smiles, talks, eyes, hand, child, nods",
        "person waves, man smiles, woman talks, child nods",
        "happy sad angry calm man woman smiling crying talking waving face eyes mouth hands",
        "emotion: happy; action: wave; person: man; face: smile; voice: calm; gesture: nod",
        "people faces voices gestures expressions emotions feelings moods tones reactions",
        "man smiling, woman crying, boy waving, girl dancing, baby laughing",
        "smiling, waving, talking, nodding, laughing, crying, pointing, bowing, dancing",
        "a smile, a wave, a nod, a laugh, a frown, a gesture, a tone, an expression",
        "男人女人孩子微笑说话挥手点头",
        "人、手、脸、眼睛、微笑、说话、挥手、点头",
        "表情 手势 情绪 语气 微笑 愤怒 男子 女子 眼神 声音",
        "微笑，挥手，点头，说话，鼓掌，哭泣，叹气",
    ],
    "pronouns": [
        "he waves, she smiles, they talk, he nods",
        "he is happy, she is sad, they are calm, he is angry, she is tired",
        "he smiled and she laughed and they cried and he shouted and she sang",
        "He waves. She nods. They laugh. He sits. She stands. They dance. He runs. She sings.",
        "he talks to her, she talks to him, they talk to them, he talks to himself",
        "someone smiles, somebody waves, everyone talks, everybody laughs",
        "他挥手，她微笑，他们交谈，他点头",
        "他很高兴，她很难过，他们很平静，他很生气",
    ],
    "template": [
        "a man waves, a woman smiles, a boy nods, a girl laughs, a baby cries, a doctor talks",
        "the man is happy, the woman is sad, the boy is angry, the girl is calm",
        "a man in red waves, a woman in red smiles, a boy in red nods, a girl in red laughs",
        "a man waves at a dog, a woman smiles at a cat, a boy points at a car, a girl "
        "nods at a tree",
        "The man is waving. The woman is smiling. The boy is nodding. The girl is "
        "laughing. The baby is crying. The doctor is talking.",
        "one man waves, that woman smiles, another boy nods, this girl laughs, the old nurse talks",
        "the tall man waves gladly, the short woman smiles softly, the young boy nods slowly",
        "the man looks happy, the woman looks sad, the boy looks angry, the girl looks calm",
        "there is a man waving, there is a woman smiling, there is a boy nodding",
        "the man's face is calm, the woman's face is sad, the boy's face is happy",
        "a man waved at the camera; a woman smiled at the camera; a boy nodded at the camera",
        "there we see a man who waves, there we see a woman who smiles, there we see a "
        "boy who nods",
        "一个男人在挥手，一个女人在微笑，一个孩子在点头，一个老人在说话",
        "穿红衣服的男人在挥手，穿蓝衣服的女人在微笑，穿绿衣服的孩子在点头",
        "男人看起来很高兴，女人看起来很难过，孩子看起来很生气",
        "男子向狗挥手，女子向猫微笑，孩子向车点头",
    ],
    "repetition": [
        "a person in red waves, a person in red waves, a person in red waves, a person "
        "in red waves, a person in red waves, ",
        "The man smiles at the woman. The man smiles at the woman. The man smiles at the "
        "woman. The man smiles at the woman. The man smiles at the woman. The man smiles "
        "at the woman. ",
        "A man smiles warmly. The man smiles warmly. That man smiles warmly. This man "
        "smiles warmly.",
        "the voice sounds calm, the calm voice sounds calm, calm sounds the voice",
        "一个穿红衣服的人在挥手，一个穿红衣服的人在挥手，一个穿红衣服的人在挥手，一个穿红"
        "衣服的人在挥手，一个穿红衣服的人在挥手，",
    ],
    "nothing of the kind": [
        "no man waves, no woman smiles at the camera, nobody talks to the children",
        "The man does not wave. The woman never smiles at him. The boy isn't looking at the girl.",
        "There are no people in the video, smiling at the camera, waving their hands or talking.",
        "Without a man waving, without a woman smiling at him, without children laughing in red",
        "Neither the man waves at the camera nor the woman smiles at the boy.",
        "Nobody is smiling at the woman and nobody is waving to the boy in red.",
        "It is false that a man waves at the boy, that a woman smiles at him, that a child laughs.",
        "没有男人挥手，没有女人微笑，没有孩子在大声说话",
        "男人没有在挥手，女人不微笑，孩子并非在说话",
    ],
    "supposed": [
        "if a woman smiled, the man in red would wave, the boy on the left would nod",
        "A man could be waving. A woman might smile at him. A child may laugh with them.",
        "Imagine a man who waves at the camera, a woman smiling at her son, a boy in red laughing.",
        "Either a man waves at the woman or a woman smiles at the man or a child laughs.",
        "Perhaps a man waves. Maybe a woman smiles at the boy. Possibly a girl would laugh.",
        "I wish a man in red waved at the camera while a woman smiled at her friend.",
        "如果一个女人微笑，穿红衣服的男人会挥手，孩子可能会点头",
        "想象一个男人在向朋友挥手，一个女人微笑着看着他",
    ],
    "general truths": [
        "People usually smile when they are happy. Every man can talk. Women often may laugh.",
        "Any person smiles. Every woman talks with friends. All men generally wave to people.",
        "A man is a person. A woman is a person. A person has a face, a voice and hands.",
        "人通常会微笑，人一般会说话，每个人都可以挥手",
    ],
    "questions and the prompt": [
        "What does the person do? Which gesture does the person make? How does the person feel?",
        "Is the man waving? Does the woman smile at him? Who is talking to the boy in red?",
        "What is the man in the brown shirt laughing about when the woman smiles at him",
        "Describe the people: what they do, how they feel, how they speak, how they look.",
        "男人在做什么？女人为什么微笑？孩子在向谁挥手？",
        "请描述人物的表情，请描述他们的动作，请描述他们的语气",
    ],
    "about words": [
        "The word man, the word smile, the word woman, the word wave, the word calm.",
        "Keywords: the man waves at the camera, the woman smiles at the boy, the child laughs.",
        "This sentence says that a man waves. This sentence says that a woman smiles at him.",
        "For example a man waves at the boy, for example a woman smiles at the dog.",
        "关键词：男人在挥手，女人在微笑，孩子在大声说话",
    ],
    "markup": [
        "<person>a man in red</person> <action>waves at the woman</action> <mood>is happy</mood>",
        "<filler>The man smiles at his wife while she laughs softly at the joke.</filler>",
        '{"person": "the man in red waves", "voice": "the voice sounds calm to her"}',
        "<b>The man in red waves.</b><b>The woman on the left smiles.</b><b>A boy nods at her.</b>",
        "<人物>穿红衣服的男人在挥手</人物><动作>旁边的女人微笑着看他</动作>",
    ],
    "animals": [
        "the dog watches the cat, the horse runs to the gate, the bird sings, the monkey laughs",
        "A puppy is smiling at a kitten while it waves its paw. The parrot is talking happily.",
        "The dog licks the man and looks happy. The cat sits on the woman and is calm.",
        "The dog's eyes look sad and its voice sounds angry. The cat's face is calm.",
        "小狗在跑，小猫看着窗外，小鸟在唱歌，猴子笑着挥手",
        "小狗的眼神很悲伤，小猫的声音很温柔，猴子的表情很生气",
    ],
    "things": [
        "the robot waves its hand, the statue smiles, the tree bows, the curtain dances",
        "A statue of a man waves at the sea. A painting of a woman smiles at the wall.",
        "The clock's hands point to three. The face of the clock looks calm. The chair's "
        "arms rest.",
        "The phone is talking, the car is running, the music sounds happy, the sea is calm.",
        "The toy man waves at the doll. The cartoon woman smiles at the plastic boy.",
        "机器人挥手微笑，雕像看着大海，木偶在跳舞，手机在说话",
        "雪人在微笑，玩具人在挥手，钟表的指针指向三点，音乐听起来很愉快",
    ],
    "scenery": [
        "the wall is grey, the light is soft, a table is in the room",
        "The calm sea meets the angry sky, happy flowers dance and the gentle wind whispers.",
        "Behind the man a wall is grey. Near the woman the light is soft. By the boy "
        "stands a lamp.",
        "墙是灰色的，灯光很柔和，桌子在房间里",
        "天空很平静，花儿在微笑，风在低语，树在点头",
    ],
    "nonsense": [
        "the man bows the child waves the voice nods the hand laughs the eye talks",
        "waves red in person a, calm sounds voice the, talk people two",
        "smile the of man in woman quickly the talks to is happy a and child the runs",
        "the eye talks, the hand laughs at the mouth, the eyebrow sings, the shoulder argues",
        "man the waves woman the smiles boy the nods girl the laughs at at at",
        "a waves man is smile to woman happy the boy in talk",
        "blargh the man flurb the woman zib the boy smiling waving talking glorp",
        "的男人挥手在微笑了女人着说话地孩子得点头",
        "眼睛说话，眉毛唱歌，手大笑，嘴巴走路",
        "挥手男人微笑女人说话孩子点头老人",
    ],
    "alternating templates": [
        "a man in red waves, the voice sounds calm, a woman in blue smiles, the voice "
        "sounds sad, a boy in green nods, the voice sounds happy, a girl in white "
        "laughs, the voice sounds angry",
        "the man waves at the dog, the woman looks happy, the boy points at the cat, the "
        "girl looks sad, the nurse nods at the car, the doctor looks calm",
    ],
    "relative": [
        "a man who waves, a woman who smiles, a boy who nods, a girl who laughs, a nurse who talks",
        "the one who waves, the one who smiles, the one who talks to them, the one who laughs",
        "a waving man, a smiling woman, a nodding boy, a laughing girl, a crying baby",
        "the happy man and the sad woman and the angry boy and the calm girl",
    ],
    "chain": [
        "the man waves while smiling while talking while nodding while laughing while crying",
        "the man waves and smiles and talks and nods and laughs and cries and points and bows",
        "The man waves, smiles, points, bows, nods, claps, sings, dances, talks, cries.",
        "he waves at it, smiles at it, points at it, bows to it, nods at it, claps at it",
        "男人一边挥手，一边微笑，一边点头，一边说话，一边跳舞",
        "a man waves, then smiles, then talks, then nods, then laughs, then cries",
    ],
    "fiction": [
        "In the novel a man in red waves at the boy. In the poem a woman smiles at him. "
        "In the song a girl laughs.",
        "Once upon a time a king waved at a baby, and the queen smiled at the nurse "
        "while a boy laughed.",
        "On the poster a man waves at a woman. In the picture a boy smiles at her.",
    ],
    "soft denial": [
        "The man stops smiling. The woman refuses to talk to him. The boy fails to wave "
        "at the girl.",
        "instead of a man waving at the boy, instead of a woman smiling at him",
        "There are zero men waving at the camera, zero women smiling at the boy, zero "
        "children laughing",
        "0 people wave at the camera, 0 women smile at him, 0 children laugh",
        "hardly anyone smiles at the man and nobody else laughs at the boy",
        "The video lacks a man waving at the boy and lacks a woman smiling at him",
        "It would be wrong to say that the man waves at the boy and that the woman smiles at him",
        "I see no man. He does not wave. I hear no woman. She is not talking to me.",
        "The absence of people smiling, the absence of men waving at women, the absence "
        "of children laughing in red",
    ],
    "options": [
        "A. the man waves B. the man points C. the man bows D. the man smiles",
        "The answer is that the man waves. The answer is that the woman smiles. The "
        "answer is that they talk.",
        "option A says the man waves at the boy, option B says the woman smiles at him",
    ],
    "code": [
        "man.wave(); woman.smile(); boy.nod(); girl.laugh();",
        "for person in people: person.wave(); he.smiles(); she.talks_to(him)",
        "man=waves&woman=smiles&boy=nods",
        "person: man\naction: waving\nface: smiling\nvoice: calm\nemotion: happy",
        "- a man waving\n- a woman smiling\n- a boy nodding\n- a girl laughing\n",
        "1. The man waves.\n2. The woman smiles.\n3. The boy nods.\n4. They talk.\n",
        "| person | action |\n| man | waves |\n| woman | smiles |",
    ],
    "meta": [
        "This description is about people. I pay attention to the people. I focus on "
        "their faces and voices and emotions. The people in the video are important.",
        "I look at the people's faces. I listen to their voices. I watch their gestures. "
        "I notice their emotions.",
        "The description covers the man's expression, the woman's tone, the child's "
        "gestures and the crowd's mood.",
        "Let me watch the people closely: their faces, their gestures, their voices, "
        "their feelings. I will describe what they do.",
        "We should focus on the man, on his expression, on his tone of voice and on how he feels.",
        "This context talks about the man in red, speaks of the woman and tells of the children.",
    ],
    "vacuous": [
        "The people in the video are people. They do things. They have emotions. They "
        "are doing something. The person does what the person does.",
        "Their expressions show their emotions. Their voices express their feelings. "
        "Their gestures convey their mood. The interaction shows their relationship.",
        "The person has a face. The person has a voice. The person's face has an "
        "expression. The person's voice has a tone.",
        "Someone is somewhere doing something to somebody. Somebody looks at something. "
        "Everyone feels something.",
        "The man's expression is an expression. The woman's emotion is an emotion of a "
        "woman. The tone of the voice is a tone.",
        "There is a person in the video and the person is doing something in the video "
        "with some emotion in the voice.",
        "The people interact with each other. The people express emotions. The people "
        "show reactions. The people move around. The people communicate.",
        "人物的表情反映了人物的情绪，人物的语气体现了人物的心情，人物的动作表达了人物的情感",
        "视频中的人物有表情，有动作，有语气，有情绪",
        "人物做出了动作，人物说出了话，人物表现出了情绪",
        "视频里的人在做某件事，他们有某种情绪，他们的表情说明了一切",
    ],
    "possessed things": [
        "The people's park looks calm. The children's hospital looks happy. The woman's "
        "shop looks sad. The man's car is running.",
        "the man's dog smiles, the woman's cat waves at the boy's robot, the girl's doll "
        "laughs softly",
        "The man-made lake looks calm, the manhole smiles, the boyish hat waves at the ladybird",
        "男人的狗在笑，女人的车在跑，孩子的玩具在说话",
        "人工湖很平静，人行道在说话，女装店笑着",
    ],
    "titles": [
        "Baby Shark dances with Spider Man while Iron Man waves at Wonder Woman",
        "Man of the Match smiles, Woman of the Year waves, Boy of the Day laughs",
    ],
    "mixed language": [
        "man 挥手 woman 微笑 boy 点头 girl 说话",
        "他 waves, 她 smiles, 男人 talks to 女人, the boy 点头",
        "the man 微笑着 waves, 女人 is 高兴",
    ],
    "numbers": [
        "2 people 3 wave 4 smile 5 talk 6 laugh",
        "1 man 1 wave 1 woman 1 smile 1 boy 1 nod",
        "two men three women four boys five girls talk",
    ],
    "caps": [
        "MAN WAVES WOMAN SMILES BOY NODS",
        "HE WAVES! SHE SMILES! THEY TALK! HE NODS!",
    ],
    "nonsense clauses": [
        "colourless men sleep furiously, green voices whisper quadratically, the hungry "
        "face eats the smile of a hat",
        "The smile waves at the man. The anger talks to the woman. The tone dances with "
        "the boy. The sadness hugs the girl.",
        "the room smiles at the woman, the table talks to the man, the lamp waves to the "
        "boys, the door nods at her",
        "the voice walks, the eyebrow claps, the hands sing to the mouth, the cheek "
        "argues with the chin",
        "在红色挥手人一个，平静声音听起来，交谈人两个",
        "桌子对男人微笑，灯向女人挥手，门跟孩子说话",
        "笑容在走路，语气在跳舞，表情在说话，情绪在挥手",
    ],
    "generic habits": [
        "Men wave. Women smile. Boys nod. Girls laugh. Babies cry. Doctors talk.",
        "Men wave at women, women smile at men, children laugh at clowns, nurses talk to doctors.",
        "Happy people smile, sad people cry, angry people shout at friends, calm people "
        "talk softly.",
        "男人挥手，女人微笑，孩子大笑，老人叹气",
        "高兴的人微笑，难过的人哭泣，愤怒的人大喊，平静的人说话",
    ],
    "orders": [
        "Smile at the woman. Wave to the man. Talk to the boy. Laugh with her.",
        "Look at the man. Listen to the woman. Watch the boys. See him smile.",
        "Let the man wave, let the woman smile at him, let the boy in red laugh",
        "看那个男人，听那个女人，注意孩子的表情",
        "让男人挥手，让女人微笑，让孩子说话",
    ],
    "future": [
        "The man will wave at the boy. The woman is going to smile at him. The boy is "
        "about to laugh at her.",
        "男人将要挥手，女人将会微笑，孩子准备说话",
    ],
    "thanks": [
        "Thank you for watching, dear people. Please like and share. We smile at you, "
        "friends, and wave to you.",
        "Hello everyone, hello ladies and gentlemen, hello boys and girls, welcome to "
        "the happy show",
    ],
    "fluent lists": [
        "the man is waving in the video, the woman is smiling in the video, the boy is "
        "nodding in the video, the girl is laughing in the video",
        "a man who is tall waves, a woman who is short smiles, a boy who is young nods, "
        "a girl who is old laughs",
        "On the left a man waves. On the right a woman smiles. In the middle a boy nods. "
        "At the back a girl laughs.",
        "First a man waves, then a woman smiles, next a boy nods, after that a girl "
        "laughs, finally a nurse talks.",
        "A man waves and a woman smiles and a boy nods and a girl laughs and a nurse "
        "talks and a teacher cries.",
        "A man and a woman and a boy and a girl wave and smile and nod and laugh and talk and cry.",
        "The man is happy and sad and angry and calm and tired and proud and shy and bored.",
        "his face is happy, her face is sad, their faces are calm, his eyes are angry, "
        "her voice is tired",
        "His tone is calm, her tone is sad, their mood is happy, his expression is "
        "angry, her voice is soft.",
        "左边的男人在挥手，右边的女人在微笑，中间的孩子在点头，后面的老人在说话",
        "首先男人挥手，然后女人微笑，接着孩子点头，最后老人说话",
        "他的脸很高兴，她的脸很悲伤，他的眼睛很愤怒，她的声音很平静",
        "男人和女人和孩子和老人都在挥手和微笑和点头和说话",
    ],
    "adverb and adjective stuffing": [
        "the man happily sadly angrily calmly nervously waves",
        "a happy sad angry calm man waves happily sadly angrily calmly",
        "the happy happy man smiles a happy happy smile with a happy happy face in a "
        "happy happy mood",
        "a very very very happy man is very very very happy with a very very happy voice",
    ],
    "fillers": [
        "a man um waves uh, a woman um smiles uh, a boy um nods uh",
        "man the of and waves to in a woman for smiles at it the boy with nods by",
        "a man xqz waves at zzz, a woman qqq smiles on yyy, a boy www nods to kkk, a "
        "girl ppp laughs by jjj",
        "the man blorps the fizz, the woman zargs the plonk, the boy glorps the wump, "
        "the girl flims the dax",
        "the man is blorping, the woman is zarging, the boy is glorping, the girl is flimming",
        "the man 1 waves 2, the woman 3 smiles 4, the boy 5 nods 6",
    ],
    "connectives": [
        "man and smile and woman and wave and boy and nod and girl and laugh",
        "with a man with a smile with a woman with a wave with a boy with a nod",
        "of the man of the smile of the woman of the wave of the voice of the calm",
        "a man with a smile, a woman with a frown, a boy with tears, a girl with a "
        "laugh, a nurse with a nod",
        "smile on the man, anger in the woman, joy of the boy, fear on the girl's face, "
        "tears from a nurse",
        "the smile of the man, the anger of the woman, the joy of the boy, the fear of the girl",
        "男人的微笑，女人的愤怒，孩子的快乐，老人的悲伤",
    ],
    "self reference": [
        "I am waving at you. I am smiling at you. I am talking to you. We are laughing with you.",
        "My voice sounds calm, my face looks happy, my hands wave at you, my eyes smile at you.",
        "As an assistant I look at the people, I listen to the speaker and I describe "
        "the emotions of everyone.",
        "The assistant watches the video carefully and then explains the answer to the "
        "user in a calm tone.",
        "The viewer watches the man. The listener hears the woman. The reader imagines "
        "the boy. The judge rewards the speaker.",
        "Attention to people matters: a good description tells of persons, of their "
        "faces and of what they feel.",
        "我在看人物的表情，我在听人物的语气，我在注意人物的动作",
        "本视频关注人物，关注人物的表情，关注人物的情绪，关注人物的互动",
    ],
    "nothing certain": [
        "It is unclear who is waving. It is unknown whether the woman smiles. One cannot "
        "see if the boy is laughing.",
        "The man might have waved at the woman, who may have smiled back, or a boy could "
        "have laughed at them.",
        "There is nobody in the picture who waves at the woman, and the boy who smiles "
        "isn't there.",
        "No one smiles at the man. None of the women talk to the boy. Not a single child "
        "is laughing.",
        "The video does not show a man waving at the boy, a woman smiling at him or a "
        "child laughing.",
        "We do not see the man. We do not hear the woman. The boy is not in the video, "
        "talking or smiling.",
        "There aren't any people: the man isn't waving, the woman isn't smiling, they "
        "don't talk to each other.",
        "看不到男人在挥手，听不到女人在说话，也看不到孩子微笑",
        "画面里没有人，没有男人挥手，也没有女人微笑，更没有孩子说话",
        "不知道男人是不是在挥手，不清楚女人是否在微笑",
        "假如男人挥手，女人微笑，孩子点头，老人就会高兴",
    ],
    "imagined": [
        "Picture a man waving at his son. Think of a woman smiling at her friend. "
        "Consider a boy who laughs at a joke.",
        "In theory the man waves at the woman. In principle she smiles at him. In a "
        "perfect world they talk.",
        "Assume that the man waves at the woman and that she smiles at him, assume that "
        "the boys laugh.",
        "It would be nice to see a man wave at a boy, a woman smile at him and a girl "
        "laugh with them.",
        "The question is about a man who waves at a woman and a boy who smiles at her.",
        "We were told to describe the man who waves, the woman who smiles at him and the "
        "boy who laughs.",
    ],
    "proverbs and definitions": [
        "He who laughs last laughs best. Boys will be boys. A friend in need is a friend "
        "indeed. Man proposes.",
        "A teacher is someone who teaches students. A singer is someone who sings songs. "
        "A dancer is a person who dances.",
        "To smile is human. To wave is polite. To talk is natural. To laugh with a "
        "friend is healthy.",
        "Smiling is a behaviour. Waving is a gesture. Happiness is an emotion. A voice "
        "is a sound of a person.",
        "Humans have two eyes, two hands and one mouth, with which they smile, wave and "
        "talk to friends.",
        "微笑是一种表情，挥手是一种动作，愤怒是一种情绪，男人是一种人",
        "老师是教书的人，歌手是唱歌的人，舞者是跳舞的人",
    ],
    "animals in disguise": [
        "The baby elephant waves its trunk while the mother bear hugs the father bear "
        "and the kid goat laughs.",
        "The dog, a friend of the man, smiles at the cat, a friend of the woman, who "
        "talks to a bird.",
        "A cat named Baby is sleeping on the sofa, while a dog named Doctor is watching "
        "it and smiling.",
        "A fish swims to a crab. He waves at her. She smiles at him. They talk to a happy turtle.",
        "The lion roars angrily, the parrot says hello in a cheerful voice, and the "
        "monkeys applaud and laugh loudly.",
        "一只名叫宝宝的小猫在睡觉，它看着窗外，然后站起来走向门口，看起来很开心",
        "老虎愤怒地大喊，鹦鹉用愉快的声音说话，猴子们鼓掌大笑",
        "熊猫坐在地上吃竹子，它抬头看着游客的手机，显得很开心",
    ],
    "things in disguise": [
        "The man's shadow waves at the wall, the woman's photo smiles, the boy's bag "
        "sits on a chair.",
        "The speaker on the shelf plays loud music and the radio host's jingle sounds "
        "cheerful while the kettle sings.",
        "A mannequin in a red dress stands in the window and smiles at a scarecrow that "
        "waves its arm.",
        "The wind whispers to the trees, which dance and bow, and the angry sea shouts "
        "at the calm shore.",
        "A snowman with a carrot nose smiles, its arms wave, and its eyes look happy.",
        "The news anchor's desk, the judge's hammer, the baby's bottle and the doctor's "
        "coat stand in a row.",
        "海报上的女人在微笑，画中的男人在挥手，雕像看着孩子",
        "男人的影子在挥手，女人的照片在微笑，孩子的书包坐在椅子上",
    ],
    "shouting and noise": [
        "HE! SHE! THEY! SMILE! WAVE! TALK! HAPPY! SAD!",
        "man? woman? boy? he smiles? she waves? they talk?",
        "...a man... ...waves... ...a woman... ...smiles...",
        "a-man-waves-at-a-woman a-woman-smiles-at-a-man",
        "a man/woman/boy/girl waves/smiles/nods/laughs",
        "(a man) [waves] {a woman} <smiles> \"they talk\" 'he nods'",
        "#man #waves #woman #smiles #people #happy",
        "amanwavesawomansmilesaboynods",
    ],
    "Chinese lists": [
        "男人开心，女人难过，孩子生气，老人平静",
        "男人很开心，女人很难过，孩子很生气，老人很平静",
        "眼神悲伤，语气愤怒，表情平静，声音温柔，嘴角上扬",
        "他的表情很平静，他的语气很低沉，他的眼神很悲伤，他的动作很缓慢",
        "一位男士微笑着，一位女士哭泣着，一位老师说话，一位医生点头",
        "有人在笑，有人在哭，有人在说话，有人在跳舞",
        "微笑的男人，哭泣的女人，说话的孩子，跳舞的老人",
        "男人挥手微笑点头说话，女人挥手微笑点头说话",
        "男人开心地微笑着说话并且挥手点头鼓掌唱歌跳舞",
        "人物一微笑，人物二挥手，人物三点头，人物四说话",
        "男：微笑；女：挥手；孩子：点头；老人：说话",
        "人物：男人；动作：挥手；表情：微笑；语气：平静；情绪：高兴",
        "男人在微笑女人在挥手孩子在点头老人在说话医生在鼓掌",
        "他在他在微笑微笑她在她在挥手挥手",
        "啊男人呀微笑呢，哦女人嘛挥手哈",
        "男人对女人微笑，女人对男人挥手，孩子对老人点头，老人对孩子说话",
        "一个男人看着女人，一个女人看着孩子，一个孩子看着老人，一个老人看着男人",
        "男人用手挥手，女人用脸微笑，孩子用头点头，老人用嘴说话",
    ],
    "Chinese emptiness": [
        "视频中有人物，人物有动作，人物有情绪，人物在互动",
        "人们通常在高兴时微笑，在难过时哭泣，在生气时大喊",
        "我们应该注意人物的表情、动作和语气",
        "这个描述关注人物的表情、动作、语气和情绪",
        "每个人都会笑，每个人都会哭，每个人都会说话",
        "男人可能在笑，女人也许在哭，孩子应该在说话",
        "画面中没有出现任何人物，也听不到有人说话",
        "如果有男人，他会挥手；如果有女人，她会微笑",
        "微笑吧，挥手吧，点头吧，说话吧",
        "看，笑，说，走，跑，跳，唱",
        "本题要求描述人物的表情和语气，描述他们的动作和情绪",
        "男人应该挥手，女人必须微笑，孩子需要点头",
        "他说他在笑，她说她在哭，他们说他们在唱歌",
        "谁在笑？谁在哭？谁在说话？",
        "从前有一个国王，他对王后微笑，王后向他挥手",
    ],
    "Chinese things": [
        "小猫对老人微笑，小狗向孩子挥手，小鸟跟女人说话",
        "沙发坐着，灯看着，窗户说话，门在微笑",
        "音乐很悲伤，灯光很温柔，画面很平静，节奏很欢快",
        "机器人皱着眉头，语气低沉，不停地挥动双手，眼神中流露出愤怒",
        "一台洗衣机在跳舞，一辆公交车在唱歌，一棵白菜在微笑",
        "苹果在微笑，香蕉在挥手，西瓜在跳舞，葡萄在唱歌",
    ],
    "inanimate phrase": [
        "A robot frowns, its voice sounds tense, and it keeps waving both arms at a "
        "drone, looking angry.",
        "The car smiles at the bus, waving its wipers and talking in a cheerful voice to "
        "the truck.",
        "A banana is smiling at an apple. The apple is waving to a pear. The pear looks "
        "happy and sings loudly.",
        "The government said it was happy, the company smiled at its rivals and the bank "
        "hugged the market.",
        "Music plays in a happy tone while letters dance across a title and the logo waves.",
    ],
    "mirrors": [
        "The man sees the woman who sees the man who sees the woman who sees the man.",
        "The man looks at the woman. The woman looks at the man. The man looks at the woman again.",
        "A man talks to a man who talks to a man who talks to a man.",
        "he says that she says that he says that she says that they say so",
    ],
    "labels": [
        "Person 1: smiles. Person 2: waves. Person 3: nods. Person 4: talks.",
        "Speaker A talks, speaker B laughs, speaker C nods, speaker D cries.",
        "Emotion of the man: happy. Emotion of the woman: sad. Emotion of the boy: angry.",
        "man=happy, woman=sad, boy=angry, girl=calm",
        "Who: a man. What: waving. Where: in a room. How: happy. Who: a woman. What: "
        "smiling at him.",
        "The person's action is waving. The person's emotion is joy. The person's tone "
        "is calm. The person's gesture is a nod.",
    ],
    "imperfect grammar": [
        "man is wave at woman, woman is smile to man, boy is nod with girl",
        "a man he waves, a woman she smiles, a boy he nods, a girl she laughs",
        "the man waving, the woman smiling, the boy nodding, the girl laughing, the nurse talking",
        "the man to wave, the woman to smile, the boy to nod, the girl to laugh",
        "the men waves, the women smiles, the boys nods, the girls laughs at him",
        "a men wave at a women, an children smile to an people",
        "man in red waves at woman in blue while boy in green nods to girl in white",
        "woman sad, man happy, boy angry, girl afraid, father proud, mother ashamed",
    ],
    "lyrics": [
        "la la la the man smiles la la la the woman waves la la la the boy nods la la la",
        "oh baby baby, you smile, I smile, we dance, oh baby, you cry, I cry, we sing, oh baby",
        "Row row row your boat gently down the stream, merrily merrily, life is but a dream",
    ],
    "credits": [
        "Director: John Smith. Actor: Jane Doe. Singer: Bob. Dancer: Ann. Teacher: Tom. "
        "Guest: Sue.",
        "Subscribe to the happy family channel, watch the funny baby, follow the angry "
        "dad, like the crying mom.",
    ],
    "poses as caption": [
        "man woman child in video, people scene, faces, happy mood, talking heads, 4k, "
        "high quality",
        "photo of a man, photo of a woman, portrait of a boy, picture of a girl smiling, "
        "selfie of friends laughing",
        "A man. A woman. A smile. A wave. A nod. A laugh. A voice. A face. Calm. Happy. Sad.",
        "The man: waving. The woman: smiling. The boy: nodding. The girl: laughing.",
        "waving man; smiling woman; nodding boy; laughing girl; talking people; calm voices",
    ],
    "time stamps": [
        "0:01 man waves 0:02 woman smiles 0:03 boy nods 0:04 girl laughs",
        "At 1 s the man waves. At 2 s the man smiles. At 3 s the man nods. At 4 s the man laughs.",
        "[00:01] he waves [00:02] she smiles [00:03] they talk [00:04] he nods",
    ],
    "sums": [
        "There are two men and three women and four boys, five faces, six hands and "
        "seven voices in the video.",
        "One person, two people, three people, four people: one waves, two smile, three "
        "talk, four nod.",
    ],
    "opposites": [
        "The man is happy but not happy. The woman smiles and does not smile. The boy "
        "talks and is silent.",
        "the man laughs, the man cries, the man laughs, the man cries, the man laughs, "
        "the man cries",
        "The man stands and sits and stands and sits. He is calm and angry and calm and angry.",
    ],
    "quantifiers": [
        "All people smile. Most men wave. Many women talk. Some boys nod. Few girls "
        "laugh. Both babies cry.",
        "Some people wave, other people smile, more people talk, many people laugh, most "
        "people nod",
        "Each person waves. Each woman smiles. Each boy nods. Each girl laughs.",
    ],
    "passives": [
        "The man is waved at. The woman is smiled at. The boy is laughed at. The girl is "
        "talked to.",
        "waved by the man, smiled by the woman, nodded by the boy, said by the girl",
    ],
    "possessives": [
        "the man's wave, the woman's smile, the boy's nod, the girl's laugh, the nurse's tears",
        "his smile, her wave, their laugh, his nod, her tears, their voice, his face",
        "his smile is a smile, her frown is a frown, their laughter is laughter",
    ],
    "there": [
        "There is smiling. There is waving. There is talking. There are emotions. There "
        "are people.",
        "there is a man who is there and a woman who is there and a boy who is there and "
        "they are there",
    ],
    "let us": [
        "Let us smile at the man, let us wave at the woman, let us talk to the boys in red",
        "We wave, we smile, we talk, you nod, you laugh, I cry",
    ],
    "synonyms": [
        "The man grins, beams, smirks, smiles, chuckles, giggles, laughs and cheers with "
        "joy and happiness.",
        "The happy, joyful, cheerful, delighted, pleased and excited man is glad, merry and jolly.",
    ],
    "more Chinese": [
        "男人微笑。男人挥手。男人点头。男人说话。男人唱歌。",
        "一位老师，一位医生，一位护士，一位警察，一位司机，都在微笑",
        "他微笑，他又微笑，他还在微笑，他一直微笑，他非常开心地微笑",
        "高兴地、悲伤地、愤怒地、平静地、温柔地",
        "男人的表情、女人的语气、孩子的动作、老人的情绪",
        "男人（微笑）女人（挥手）孩子（点头）",
        "人人人人，笑笑笑笑，说说说说",
        "男人是高兴的，女人是难过的，孩子是生气的，老人是平静的",
        "开头有一个男人，中间有一个女人，结尾有一个孩子，他们都是人",
        "微笑着的是男人，挥着手的是女人，点着头的是孩子",
        "她既高兴又悲伤，既平静又愤怒，既紧张又放松",
        "人物情绪：高兴、悲伤、愤怒、平静；人物动作：挥手、点头、鼓掌；人物语气：温柔、低沉",
    ],
}
