"""Chinese word lists of the rewards; the only module that is not plain ASCII.

The format is that of `lexicon.entries`.  The longest match wins, so compounds that only contain a
listed character (a robot, a mobile phone) are listed under NEUTRAL.
"""

from __future__ import annotations

PEOPLE = """
人/人们/人物/人群 男人/男子/男士/男性 女人/女子/女士/女性 孩子/小孩/儿童 男孩 女孩 婴儿 老人
观众 朋友 同事 老师 学生 医生 护士 父亲/爸爸 母亲/妈妈 丈夫 妻子 夫妻 家人 情侣
主持人 说话者 演讲者 嘉宾 顾客 警察 司机 工人 演员
"""
BODY = """
脸/脸部/脸上/面部 眼睛/双眼/眼神/目光 嘴/嘴巴/嘴唇/嘴角 眉毛/眉头 手/双手/手臂/手指 头/头部
肩膀 声音/嗓音 语气/语调
"""
PRONOUNS = "他/他们 她/她们"
BEHAVIOUR = """
挥手/招手 指/指向/指着 鞠躬 点头 摇头 耸肩 握手 拥抱 鼓掌/拍手 走/走路/行走/走动 跑/跑步/奔跑
跳/跳跃 跳舞 坐/坐着 站/站立/站着 转身 靠近 离开 倾听/聆听 看/看着/注视/凝视/望着
说/说话/说道 谈话/交谈/谈论/聊天 讨论 争论/争吵 问/询问/提问 回答 解释 喊/大喊/喊叫 低语
唱/唱歌 微笑/笑/笑着/笑容 大笑 皱眉 哭/哭泣/流泪 叹气 倒吸 惊呼 数/数着 移动
平静/镇定/冷静 愉快/欢快 开心/高兴/快乐 生气/愤怒/恼怒 悲伤/难过/伤心 惊讶/吃惊/震惊
害怕/恐惧 紧张 焦虑 尴尬 困惑/疑惑 激动/兴奋 失望 担心 自信 犹豫 友好 严肃
表情/神情 手势 动作 姿势/姿态 互动 情绪/心情
"""
SETTING = """
墙/墙壁/墙上 灯/灯光/光线 桌子/桌/桌上 椅子 沙发 床 房间 背景 窗户/窗/窗外 地板/地面 天花板
家具 门 窗帘 地毯 场景/布景 建筑/大楼 天空 树/树木 街道 厨房 客厅 办公室 风景
"""
NEUTRAL = """
其他 其它 机器人 人工 手机 手表 数字 数量 多数 少数 看来 看起来 说明 头发 令人 门票 指数
小说 走廊 问题 站点 车站 点头之交 好笑 笑话 床单
"""
NEGATIONS = "不 没 没有 并非 从不 无人"
# Values a fact can take, under the English word; see `grounding`.
COLOURS = "red/红/红色 green/绿/绿色 blue/蓝/蓝色 yellow/黄/黄色 black/黑/黑色 white/白/白色"
VOICES = "calm/平静/镇定/冷静 cheerful/愉快/欢快 angry/生气/愤怒/恼怒 sad/悲伤/难过/伤心"
GESTURES = "wave/挥手/招手 point/指/指向/指着 bow/鞠躬 nod/点头 clap/鼓掌/拍手 walk/走/走路"
EXPRESSIONS = "smile/微笑/笑/笑着 frown/皱眉 gasp/倒吸/惊呼 cry/哭/哭泣/流泪 laugh/大笑"
NUMBERS = "0/零 1/一 2/二/两 3/三 4/四 5/五 6/六 7/七 8/八 9/九 10/十"
# Nouns such values belong to.
BALLS = "ball/球"
CLOTHES = "clothes/衣服/衣/上衣/外套/衬衫/裙子"
VOICE_WORDS = "声音/嗓音 语气/语调 说/说话/说道 谈话/交谈 听起来"
