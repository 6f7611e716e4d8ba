"""Phrase bank of the built-in passages: slots, neutral sentences by topic, emotional ones by emotion.

In a template ``[a|b|c]`` stands for one of its alternatives and ``{name}`` for an entry of ``SLOTS``. The slots are the
same for neutral and for emotional sentences, so that their words say nothing about either.
"""

from __future__ import annotations

from superactivators.data.phrases_pleasant import PLEASANT
from superactivators.data.phrases_unpleasant import UNPLEASANT

SLOTS: dict[str, tuple[str, ...]] = {
    "person": (
        "Amara", "Ben", "Chloe", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Inês", "Jonas", "Keiko", "Liam",
        "Mirela", "Nadia", "Oscar", "Priya", "Rosa", "Samir", "Tomás", "Ute", "Vera", "Wei", "Yusuf", "Zofia",
    ),
    "place": (
        "the kitchen", "the hall", "the office", "the library", "the waiting room", "the workshop", "the café",
        "the station",
    ),
    "time": (
        "this morning", "yesterday", "on Tuesday", "last week", "before lunch", "after work", "at the weekend",
        "just after nine",
    ),
    "thing": ("clipboard", "notebook", "toolbox", "kettle", "rucksack", "lamp", "folding chair", "tape measure"),
    "number": ("two", "three", "four", "five", "six", "seven"),
}  # fmt: skip
"""Fillers by slot; ``{other}`` is a second person."""

NEUTRAL: dict[str, tuple[str, ...]] = {
    "weather": (
        "The forecast says [light rain|cloud|a breeze from the west] until [noon|Thursday|the evening].",
        "It was [nine|twelve|fourteen] degrees {time}, with [thin cloud|some drizzle|a little sun].",
        "The [wind|rain|fog] usually comes in from the [coast|hills|north] at this time of year.",
        "{person} left [a raincoat|a scarf|an umbrella] by the door in case it [rains|turns colder].",
        "Clouds covered the [valley|harbour|ring road] for most of the [day|afternoon|week].",
        "The puddles in the [yard|lane|car park] had dried up by [four|midday|the time the shops closed].",
        "I checked the barometer in {place} and wrote the figure down.",
        "Snow is expected above [six hundred|eight hundred|a thousand] metres, and rain below that.",
        "The sun sets at about [five|half past six|nine] this month.",
    ),
    "errands": (
        "I picked up {number} [stamps|envelopes|light bulbs] on the way back {time}.",
        "{person} dropped the [parcel|forms|library books] off {time}.",
        "The [pharmacy|bakery|post office] closes at [one|five|half past six] on Saturdays.",
        "We need [bread|dish soap|printer paper], {number} [lemons|batteries|onions] and a new {thing}.",
        "The queue at the [bank|counter|till] moved at its normal pace, and I was out in [six|ten|fifteen] minutes.",
        "{person} returned the {thing} because it was the wrong [size|colour|model].",
        "My list for tomorrow has {number} things on it, and most of them are in the same street.",
        "The shop on the corner sells a [soap|candle|tea] called [Joy|Delight|Little Wonder] in a yellow box.",
        "I paid the [water|phone|electricity] bill {time} and filed the receipt.",
    ),
    "office": (
        "The meeting in the [small|upper|corner] room was moved to [ten|two|half past three].",
        "{person} sent round the minutes {time}, with {number} items for next time.",
        "The printer on the [first|second|third] floor uses the [larger|older|refillable] cartridges.",
        "I renamed the folders so that the [dates|projects|suppliers] sort in order.",
        "{person} and {other} share the desk by the [window|stairs|copier] on alternate days.",
        "The quarterly figures go to the [accountant|archive|head office] on the [fifth|tenth|last day] of the month.",
        "There are {number} new chairs in {place}, and one of them has no wheels yet.",
        "Our [password|badge|parking] system will be updated [on Friday|next month|over the weekend].",
        "{person} is writing a report on how staff rate their [surprise|fear|anger] in an online survey.",
    ),
    "trains": (
        "The [8.14|9.40|17.05] leaves from platform {number} on weekdays.",
        "{person} changed trains at the [junction|next stop|airport] and carried on to the coast.",
        "The ticket machine takes [cards|coins|notes] but not [notes over twenty|foreign coins|phones].",
        "I had a seat by the [window|door|luggage rack] and read for most of the way.",
        "The conductor came through after the [second|third|fourth] stop and checked the tickets.",
        "There were {number} carriages {time}, one of them for bicycles.",
        "The line runs along the [river|canal|motorway] and then through a short tunnel.",
        "{person} put the [bag|rucksack|folded coat] on the rack and got out a [newspaper|timetable|sandwich].",
        "The ferry on the other bank is named [Gratitude|Love of the Isles|Sorrow Point] after an old song.",
    ),
    "cooking": (
        "Simmer the [lentils|rice|stock] for [twelve|twenty|forty] minutes with the lid on.",
        "{person} chopped {number} [onions|carrots|leeks] and put them in the [blue|large|iron] pot.",
        "The recipe calls for [a spoon|two spoons|half a cup] of [oil|vinegar|flour].",
        "I baked the bread at [two hundred|two hundred and twenty] degrees and turned it once.",
        "The [dough|soup|dessert] stood on the [sill|counter] under a cloth for {number} hours.",
        "We had [beans|pasta|fish] on [Tuesday|Friday|Sunday] with a green salad.",
        "{person} keeps the [pepper|rye flour|dried mint] in a jar on the second shelf.",
        "The dishwasher takes about [fifty|seventy|ninety] minutes on the normal setting.",
        "My cousin calls it surprise pie because there is a [potato|boiled egg|plum] in the middle.",
    ),
    "repairs": (
        "{person} replaced the [washer|hinge|fuse] and tightened the {number} screws.",
        "The [plumber|electrician|glazier] comes between [eight and ten|noon and two|three and five].",
        "I sanded the [shelf|door frame|table top] and gave it a [first|second|thin] coat of varnish.",
        "The {thing} needs a new [part|label|case], which costs about [four|nine|twelve] euros.",
        "The drill is in {place}, next to the {thing}.",
        "{person} measured the gap {time}: [eleven|twenty-six|forty] centimetres.",
        "The spare [tiles|bulbs|keys] are stored in the [cellar|attic|hall cupboard].",
        "One of the pipes runs behind the [wall|panel|bath] and comes out under the sink.",
        "I oiled the [lock|gate|wheel] and wiped it with a [cloth|rag|paper towel].",
    ),
    "garden": (
        "{person} planted {number} rows of [beans|lettuce|leeks] along the [fence|path|south wall].",
        "The [hedge|lawn|ivy] is [trimmed|cut back] every [second|third] week in summer.",
        "I moved the [pots|seed trays|bench] into the shade {time}.",
        "The [apple|pear|plum] tree by the gate carries fruit every other year.",
        "{person} lent {other} the [spade|rake|wheelbarrow] {time}.",
        "Water from the roof runs into the [green|tall|stone] barrel behind the shed.",
        "The seed packet says to leave [ten|fifteen|thirty] centimetres between plants.",
        "We cut the grass [along the path|under the trees|near the road] and left the rest long.",
        "A new variety of rose called [Tender Heart|First Kiss|Happy Hour] is on sale at the nursery.",
    ),
    "library": (
        "The reading room opens at [nine|ten] and has {number} tables.",
        "{person} borrowed a book about [bridges|beekeeping|old maps] {time}.",
        "Novels are on the [ground|first|upper] floor and atlases are [by the stairs|at the back|near the desk].",
        "I renewed the [guidebook|dictionary|biography] for [two|three|four] more weeks.",
        "The catalogue lists {number} copies, one of them in [large print|Portuguese|the reserve].",
        "{person} stamps the cards and {other} puts the returns back on the shelves.",
        "The thriller on the display is called [Cold Rage|Fear of Heights|Tears at Noon] and has {number} parts.",
        "A talk on [local rivers|family trees|printing] will be held here on [Monday|Wednesday|Friday].",
        "Late returns cost [ten|twenty|fifty] cents a day.",
    ),
    "school": (
        "The [history|chemistry|language] class meets in room [four|eleven|twenty] this term.",
        "{person} teaches [geometry|woodwork|reading] to the [first|third|final] years.",
        "The timetable has {number} lessons on Mondays and a long break at noon.",
        "Pupils bring a [ruler|calculator|pair of scissors] and {number} pencils to the first lesson.",
        "I signed the form for the [museum|swimming|farm] trip and put it in the bag.",
        "The bell rings at [five past eight|ten to one|half past three].",
        "{person} wrote the [dates|fractions|names of the rivers] on the board {time}.",
        "The caretaker put {number} chairs along the wall for the parents.",
        "The essay asks how poets of the time wrote about [love|grief|anger], in {number} pages.",
    ),
    "health": (
        "{person} has an appointment at the [dentist|optician|clinic] on [Monday|Thursday] at [nine|ten|four].",
        "The nurse noted my [height|weight|pulse] and asked me to wait in the [corridor|next room|hall].",
        "The tablets are taken [two|three|four] times a day with [water|food|a glass of milk].",
        "I swam [twenty|thirty|forty] lengths {time} and walked back.",
        "The course on [stretching|first aid|posture] has {number} sessions.",
        "{person} ran [five|eight|ten] kilometres along the [canal|river|old railway] at an even pace.",
        "The doctor listened to {person}'s heart and lungs and wrote the usual note.",
        "A leaflet in the rack explains how the [stomach|skin|eye] works.",
        "The gym changed its hours and now opens at [six|seven] on weekdays.",
    ),
    "household": (
        "The bins go out on [Tuesday|Wednesday] evening, the [blue|brown] one every other week.",
        "I folded the [towels|sheets|shirts] and put them in the [top|middle|left] drawer.",
        "{person} moved the [lamp|armchair|bookcase] closer to the [window|radiator|wall].",
        "The spare room has a [single bed|desk|wardrobe] and a view of the [street|yard|roofs].",
        "Is it {person} or {other} who has the second key to the [cellar|letter box|bike shed]?",
        "The heating switches on at [six|half past five] and off at [nine|ten].",
        "There are {number} cups on the tray and a [jug|plate|sugar bowl] beside them.",
        "I vacuumed the [stairs|hall|bedroom] {time} and changed the bag.",
        "{person} labelled the boxes by room and stacked them in {number} rows.",
    ),
    "town": (
        "The road by the [mill|church|stadium] is closed to cars until [May|the end of the month|Sunday].",
        "The [number nine|express|night] bus now stops outside the [town hall|museum|covered market].",
        "{person} works at the [tourist office|swimming pool|recycling centre] [two|three|four] days a week.",
        "The council is counting [cyclists|parking spaces|street lamps] in the [old town|eastern part|centre].",
        "The market has stalls for [cheese|cloth|second-hand books] on [Fridays|Saturdays].",
        "A sign on the door of the [theatre|bank|bakery] gives the [new hours|way to the car park|phone number].",
        "I walked past the [fountain|fire station|tram depot] and turned left at the lights.",
        "{person} and {other} live on opposite sides of the [square|river|park].",
        "The tower is [forty|sixty|ninety] metres high and was finished in [1911|1954|1987].",
    ),
}
"""Neutral templates by topic; some name an emotion that nobody feels, so that the word alone decides nothing."""

EMOTIONAL: dict[str, tuple[str, ...]] = PLEASANT | UNPLEASANT
"""Emotional templates by emotion."""
