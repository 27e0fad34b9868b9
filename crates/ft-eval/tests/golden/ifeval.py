"""IFEval's checkers of lm-evaluation-harness 0.4.13 on replies made here, into ifeval.json beside this file.

A case is [document, reply, strict, loose]. Sentences are counted by NLTK's Punkt (data of punkt_tab, from NLTK_DATA), and languages told by langdetect with a
fixed seed; the cases of both are everyday texts, since ft-eval does both by other means.
"""

import json
import os
import random
from importlib.metadata import version
from pathlib import Path

import langdetect
import nltk
from lm_eval.tasks.ifeval import instructions_util, utils
from nltk.tokenize.punkt import PunktTokenizer

assert version("lm_eval") == "0.4.13"
langdetect.DetectorFactory.seed = 0
instructions_util._get_sentence_tokenizer = lambda: PunktTokenizer("english")
rng = random.Random(4)

SENTENCES = ["The quick dog ran home.", "Is it late?", "Stop right there!", "Mr. Brown paid 3.50 dollars, not more.", "I like tea and coffee very much", "We met Dr. Lee at noon.",
             "\"Come in,\" she said.", "P.S. I forgot the milk.", "p. s. one more thing", "P.P.S. And the bread", "JSON is fine.", "My answer is yes.", "my answer is no.", "Zebra zoo, zebra ZOO"]
BLOCKS = ["* first point\n* second point", "- a\n- b\n- c", "  * spaced\n** not one", "*one* and **two** and ** ** and *three four*", "<<A title>>", "<< >>", "[name] lives at [address].", "Section 1\ntext\nSection 2\nmore",
          "SECTION 3 yes", "{\"a\": [1, 2]}", "```json\n{\"a\": 1}\n```", "```\n[1, 2,]\n```", "******", "***", "one *** two *** three", "\"quoted all\"", "THE WHOLE THING IS LOUD", "all of it is quiet here",
          "Any other questions?", "WOW NASA and U.S. said OK", "caf\u00e9 na\u00efve \u0130stanbul \u00df", "\n\n", "word", "'\"Hello, you", "Dear John,\nyours"]
LANGUAGES = {"en": "This is a perfectly ordinary sentence about the weather and the people who live here.", "de": "Das ist ein ganz gew\u00f6hnlicher Satz \u00fcber das Wetter und die Menschen, die hier wohnen.",
             "fr": "Ceci est une phrase tout \u00e0 fait ordinaire sur le temps et les gens qui habitent ici.", "es": "Esta es una frase completamente normal sobre el tiempo y las personas que viven aqu\u00ed.",
             "ru": "\u042d\u0442\u043e \u0441\u043e\u0432\u0435\u0440\u0448\u0435\u043d\u043d\u043e \u043e\u0431\u044b\u0447\u043d\u043e\u0435 \u043f\u0440\u0435\u0434\u043b\u043e\u0436\u0435\u043d\u0438\u0435 \u043e \u043f\u043e\u0433\u043e\u0434\u0435 \u0438 \u043b\u044e\u0434\u044f\u0445.", "hi": "\u092f\u0939 \u092e\u094c\u0938\u092e \u0914\u0930 \u092f\u0939\u093e\u0901 \u0930\u0939\u0928\u0947 \u0935\u093e\u0932\u0947 \u0932\u094b\u0917\u094b\u0902 \u0915\u0947 \u092c\u093e\u0930\u0947 \u092e\u0947\u0902 \u090f\u0915 \u0938\u093e\u0927\u093e\u0930\u0923 \u0935\u093e\u0915\u094d\u092f \u0939\u0948\u0964",
             "ko": "\uc774\uac83\uc740 \ub0a0\uc528\uc640 \uc5ec\uae30\uc5d0 \uc0ac\ub294 \uc0ac\ub78c\ub4e4\uc5d0 \ub300\ud55c \ud3c9\ubc94\ud55c \ubb38\uc7a5\uc785\ub2c8\ub2e4.", "th": "\u0e19\u0e35\u0e48\u0e04\u0e37\u0e2d\u0e1b\u0e23\u0e30\u0e42\u0e22\u0e04\u0e18\u0e23\u0e23\u0e21\u0e14\u0e32\u0e40\u0e01\u0e35\u0e48\u0e22\u0e27\u0e01\u0e31\u0e1a\u0e2a\u0e20\u0e32\u0e1e\u0e2d\u0e32\u0e01\u0e32\u0e28",
             "it": "Questa \u00e8 una frase del tutto normale sul tempo e sulle persone che vivono qui.", "ar": "\u0647\u0630\u0647 \u062c\u0645\u0644\u0629 \u0639\u0627\u062f\u064a\u0629 \u062a\u0645\u0627\u0645\u0627 \u0639\u0646 \u0627\u0644\u0637\u0642\u0633 \u0648\u0627\u0644\u0646\u0627\u0633 \u0627\u0644\u0630\u064a\u0646 \u064a\u0639\u064a\u0634\u0648\u0646 \u0647\u0646\u0627."}
relation = lambda: rng.choice(["less than", "at least"])
n = lambda most: rng.randint(1, most)
INSTRUCTIONS = {
    "keywords:existence": lambda: {"keywords": rng.sample(["dog", "TEA", "zoo", "answer", "noon"], n(2))},
    "keywords:frequency": lambda: {"keyword": rng.choice(["zebra", " the", "o"]), "frequency": n(4), "relation": relation()},
    "keywords:forbidden_words": lambda: {"forbidden_words": rng.sample(["dog", "tea", "zoo", "is"], n(2))},
    "keywords:letter_frequency": lambda: {"letter": rng.choice("aeZs"), "let_frequency": n(9), "let_relation": relation()},
    "length_constraints:number_sentences": lambda: {"num_sentences": n(6), "relation": relation()},
    "length_constraints:number_paragraphs": lambda: {"num_paragraphs": n(4)},
    "length_constraints:number_words": lambda: {"num_words": rng.choice([3, 10, 20, 40]), "relation": relation()},
    "length_constraints:nth_paragraph_first_word": lambda: {"num_paragraphs": n(3), "nth_paragraph": 1, "first_word": rng.choice(["the", "Hello", "word", "dear"])},
    "detectable_content:number_placeholders": lambda: {"num_placeholders": n(3)},
    "detectable_content:postscript": lambda: {"postscript_marker": rng.choice(["P.S.", "P.P.S", "one more"])},
    "detectable_format:number_bullet_lists": lambda: {"num_bullets": n(4)},
    "detectable_format:constrained_response": dict,
    "detectable_format:number_highlighted_sections": lambda: {"num_highlights": n(5)},
    "detectable_format:multiple_sections": lambda: {"section_spliter": rng.choice(["Section", "SECTION"]), "num_sections": n(3)},
    "detectable_format:json_format": dict,
    "detectable_format:title": dict,
    "combination:two_responses": dict,
    "combination:repeat_prompt": lambda: {"prompt_to_repeat": rng.choice(["The quick dog", "is it late?", "word"])},
    "startend:end_checker": lambda: {"end_phrase": rng.choice(["Any other questions?", " dollars, not more.", "word"])},
    "startend:quotation": dict,
    "change_case:capital_word_frequency": lambda: {"capital_frequency": n(5), "capital_relation": relation()},
    "change_case:english_capital": dict,
    "change_case:english_lowercase": dict,
    "punctuation:no_comma": dict,
    "language:response_language": lambda: {"language": rng.choice(list(LANGUAGES))},
}


def reply():
    parts = [rng.choice(SENTENCES + BLOCKS) for _ in range(n(7))]
    return "".join(part + rng.choice([" ", "\n", "\n\n"]) for part in parts)


cases = []
for i in range(900):
    ids = [list(INSTRUCTIONS)[i % len(INSTRUCTIONS)]] + rng.sample([name for name in list(INSTRUCTIONS)[:-4] if name != "length_constraints:number_sentences"], rng.choice([0, 0, 1, 2]))
    kwargs = [INSTRUCTIONS[name]() for name in ids]
    text = reply()
    if ids[0] == "language:response_language":
        text = LANGUAGES[rng.choice([kwargs[0]["language"], rng.choice(list(LANGUAGES))])]
        ids, kwargs = ids[:1], kwargs[:1]
    elif ids[0] == "length_constraints:number_sentences":
        text = " ".join(rng.choice(SENTENCES[:7]) for _ in range(n(8)))
    elif ids[0].startswith("change_case:english"):
        code = rng.choice(["en", "en", "de", "fr"])
        text = LANGUAGES[code]
        # In capitals langdetect takes other languages for English.
        text = rng.choice([text, text.upper() if code == "en" else text, text.lower(), "*Note*\n" + text.lower()])
        ids, kwargs = ids[:1], kwargs[:1]
    elif ids[0] == "combination:two_responses" and i % 2:
        text = rng.choice(["a ****** b", "******a******b******", "a\n******\na", "a******b******c", "x ****** "])
    elif ids[0] in ("detectable_format:json_format", "startend:quotation") and i % 2:
        text = rng.choice(BLOCKS)
    doc = {"key": i, "prompt": "p", "instruction_id_list": ids, "kwargs": [{**{"relation": None, "num_words": None}, **k} if rng.random() < 0.3 else k for k in kwargs]}
    doc["kwargs"] = [{key: value for key, value in k.items()} for k in doc["kwargs"]]
    out = utils.process_results(doc, [text])
    cases.append([doc, text, out["inst_level_strict_acc"], out["inst_level_loose_acc"]])
    assert out["prompt_level_strict_acc"] == all(out["inst_level_strict_acc"])
sentences = []
for _ in range(300):
    text = " ".join(rng.choice(SENTENCES[:7] + SENTENCES[10:12]) for _ in range(n(8)))
    sentences.append([text, instructions_util.count_sentences(text)])
Path(__file__).with_suffix(".json").write_text(json.dumps({"cases": cases, "sentences": sentences}, ensure_ascii=False, separators=(",", ":")))
print(len(cases), sum(all(c[2]) for c in cases))
