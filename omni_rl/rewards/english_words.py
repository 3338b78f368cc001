"""English word lists of the rewards, in the format of `lexicon.entries`."""

from __future__ import annotations

PEOPLE = """
person/people/persons man/men woman/women child/children boy girl baby adult teenager human figure
guy lady gentleman/gentlemen speaker listener host guest interviewer interviewee audience crowd
friend colleague stranger couple family father mother dad mom son daughter brother sister
husband/husbands wife/wives teacher student doctor nurse officer policeman/policemen driver worker
waiter waitress customer actor actress character someone somebody everyone everybody player
kid toddler infant youth elder grandmother grandfather grandma grandpa parent singer dancer
performer reporter journalist presenter anchor narrator chef cook politician lawyer judge soldier
patient coach athlete musician artist girlfriend boyfriend neighbour neighbor boss employee manager
partner passenger shopper spectator viewer protagonist individual contestant bride groom scientist
professor pupil classmate teammate team group lecturer instructor vlogger comedian pianist drummer
guitarist firefighter assistant clerk seller vendor secretary leader politician bystander victim
suspect witness roommate visitor tourist model magician cameraman/cameramen
clown king queen prince princess pilot farmer priest monk captain president minister mayor cousin
uncle aunt twin referee runner swimmer skater boxer wrestler cyclist fan dentist therapist
barista gymnast
"""
COLLECTIVES = "audience crowd couple family team group people youth"
BODY = """
face eye mouth lip eyebrow brow cheek head hand arm finger shoulder voice forehead gaze leg chin
"""
PRONOUNS = "he/him/his/himself she/her/hers/herself they/them/their/themselves"
ACTIONS = """
wave point bow nod clap applaud shrug hug kiss walk run/ran jump dance turn lean kneel/knelt reach
hold/held give/gave/given shake/shook/shaken stand/stood sit/sat/sitting raise lower lift touch push
pull follow approach leave look watch stare glance gaze listen move gesture gesticulate
talk speak/spoke/spoken say/said tell/told/telling ask answer reply explain discuss argue chat shout
whisper yell scream sing/sang/sung laugh giggle chuckle cry smile grin frown gasp sigh sob weep/wept
wink blink blush pout scowl sneer count interact converse embrace greet comfort console apologise
apologize complain hesitate pause tease joke encourage agree disagree play cook eat/ate/eaten
drink/drank/drunk drive/drove/driven ride/rode/ridden swim/swam/swum fight/fought
write/wrote/written
read work wear/wore/worn open close cut/cutting throw/threw/thrown catch/caught climb
fall/fell/fallen sleep/slept wait teach/taught perform demonstrate show/shown present describe
introduce interview address cover wipe scratch tap fidget tremble crouch bend/bent stretch rub
clench furrow purse roll rest cross fold spread pat hit/hitting kick grab carry pick put/putting
place wash brush comb stir pour chop cheer celebrate thank praise criticise criticize scold blame
accuse mock insist express convey react respond interrupt narrate recite mumble murmur stutter
stammer swallow squint widen narrow tighten droop rise/rose/risen wrinkle shift pace step lie/lying
exercise practice practise train race march salute pray meet/met visit help serve feed/fed
examine inspect check press type paint draw/drew/drawn knit sew build/built repair fix assemble
comment lecture debate negotiate recall mention persuade plead beg confess warn threaten
flinch startle struggle avoid nestle cuddle tickle lick bite/bit sip chew yawn sniff cough
sneeze wince grimace smirk glare beam cringe emphasise emphasize
take/took/taken make/made begin/began start try/tries continue turn manage stroke strum slice
stumble mix
"""
# What a part of the body can not do by itself.
WHOLE = """
bow clap applaud hug kiss walk run jump dance sit kneel listen talk say tell ask answer reply
explain discuss argue chat shout whisper yell scream sing laugh giggle chuckle converse embrace
greet comfort apologise apologize complain joke agree disagree cook eat drink drive ride swim fight
read work sleep teach perform interview interact nod smile frown watch play carry climb celebrate
"""
FEELINGS = """
calm cheerful angry happy sad surprised afraid scared fearful nervous anxious worried upset annoyed
frustrated furious excited proud ashamed embarrassed confused puzzled bored tired disappointed
disgusted relaxed confident shy jealous amused delighted serious friendly sincere tense hesitant
thoughtful curious shocked relieved lonely grateful gentle hostile polite sarcastic
pleased displeased dissatisfied satisfied helpless aggressive agitated irritated impatient patient
concerned sorrowful desperate enthusiastic passionate energetic animated affectionate warm cold
focused attentive engaged interested distracted determined emotional uneasy uncomfortable
comfortable awkward stern earnest trembling urgent bitter resentful guilty joyful hopeful doubtful
skeptical sceptical indifferent astonished stunned depressed melancholy distressed exhausted
apologetic wide defensive contemptuous playful loud soft quiet hoarse steady shaky
"""
NOUNS = """
expression gesture posture emotion feeling mood tone reaction interaction conversation anger joy
sadness fear surprise disgust happiness anxiety laughter tear smile frown excitement frustration
disappointment confusion worry nervousness confidence sorrow grief contempt amusement curiosity
relief embarrassment dissatisfaction satisfaction helplessness tension discomfort applause speech
dialogue argument discussion pain resentment
"""
# Too general to tell anything by themselves.
VAGUE = """
move interact express convey show react respond present perform take make begin start try continue
expression gesture posture emotion feeling mood tone reaction interaction turn manage
"""
PLACES = """
wall light lamp table room background window floor furniture chair sofa couch desk door ceiling
curtain carpet shelf/shelves bed scenery setting environment building sky tree street kitchen office
landscape decor decoration lighting wallpaper cloud mountain river sea beach grass flower road
"""
# Words of grammar, by the part they play.
DETERMINERS = """
a an the another my your our its this these those some several many few both all most two three
four five six seven eight nine ten 1 2 3 4 5 6 7 8 9 10 one each other
"""
PREPOSITIONS = """
in on at of with from to by for about into onto over under behind beside between toward towards
across around near through against along above below during inside outside upon within off out up
down next like among amid beyond past despite
"""
AUXILIARIES = "is are was were be been being am has have had does do did"
LINKS = "sound look seem appear feel/felt become/became remain stay grow/grew get/got keep/kept"
SAYING = """
say tell think see watch explain ask answer reply shout complain insist show hear mention
"""
CONNECTIVES = """
and but yet while as when because since before after who then whereas so that whom whose which also
"""
ADVERBS = """
then just still now again often together here there alone also both first almost very too
quite away back forward backward aside more up down out
"""
# Nouns through which a person is seen or counted: `a group of men`, `a close-up of a woman`.
VIEWS = """
group crowd pair couple number lot row line team class one two three four five some all both each
many most several few up closeup shot clip video footage scene view part rest member pairs groups
camera screen frame film images segment
"""
# Nothing is asserted about a person of the clip, in the clause or in the whole sentence.
DENIALS = """
not no never nobody none nothing without neither nor cannot hardly barely would could should might
may must shall will can or either zero 0 lack absence let any every always usually generally
typically whoever refuse refuses
refused fail fails failed stops stopped instead wants wanted maybe perhaps
supposedly hypothetically please normally sometimes unable absent lacks isnt arent
"""
UNREAL = """
if unless suppose imagine pretend whether whenever wish hope false untrue word words noun nouns verb
verbs keyword keywords reward rewards sentence sentences phrase example examples option options
question prompt lorem ipsum definition means generic dictionary fairy fiction fictional hypothetical
dream dreams dreamt novel poem tale legend myth vocabulary synonyms placeholder blah etc user
impossible nowhere lacks denies denied
"""
DEPICTED = """
statue doll puppet painting portrait poster robot toy mannequin cartoon sculpture avatar figurine
drawing photo stone plastic wooden snow paper imaginary invisible stick clay wax lego bot named
called
"""
ANIMALS = """
dog cat bird horse cow pig sheep monkey bear lion tiger elephant rabbit mouse/mice duck chicken
puppy kitten parrot fish snake frog bee goat wolf/wolves fox panda dinosaur dragon monster
alien car truck bus train machine computer phone clock drone
"""
ASKING = "what which who whose why how where does do did is are was were can will"
INDIRECT = "what how why whose where"
NUMBERS = "two three four five six seven eight nine ten 2 3 4 5 6 7 8 9 10 both"
OBJECT_PRONOUNS = "him himself herself themselves them her hers his their"
DEGREES = "like very too quite almost so rather slightly a"
NO_VERBS = "during something anything everything missing existing boring interesting"
