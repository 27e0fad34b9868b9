"""Rows in the fields of the hub's datasets, made for the built-in tasks: words of many scripts, empty texts, ties,
brackets, white space of all kinds."""

import json
import random
import string

import harness

rnd = random.Random(11)
words = harness.words
SPACES = ["", " ", "  ", "\t", "\n", "\u00a0", "\u2003", "\x1c", "\x0b"]


def space():
    return rnd.choice(SPACES) if rnd.random() < 0.4 else ""


def piqa(n):
    rows = []
    for i in range(n):
        first, second = words(1, 9), words(1, 9)
        if i % 7 == 3:
            second = first  # A tie.
        if i % 9 == 4:
            first, second = "yes", "no "
        rows.append({"goal": words(1, 8) + " " * (i % 4 == 1), "sol1": first, "sol2": second, "label": rnd.randint(0, 1)})
    return rows


def arc(n):
    rows = []
    for i in range(n):
        count = rnd.choice([3, 4, 4, 4, 5])
        labels = list("12345" if i % 5 == 2 else string.ascii_uppercase)[:count]
        texts = [words(1, 6) for _ in labels]
        rows.append({"id": f"row_{i}", "question": words(2, 12), "choices": {"text": texts, "label": labels}, "answerKey": rnd.choice(labels)})
    return rows


def gsm8k(n):
    rows = []
    for i in range(n):
        a, b = rnd.randint(0, 9), rnd.randint(0, 9)
        number = rnd.choice([a + b, 7, 12, "1,234.5", 5, -3, "18.00", "18", 0])
        rows.append({"question": f"{words(2, 6)} {a} and {b}?", "answer": f"It is <<{a}+{b}={a + b}>>{a + b}.\n#### {number}"})
    return rows


def openbookqa(n):
    rows = []
    for i in range(n):
        texts = [words(0 if i % 9 == 5 else 1, 5) for _ in range(4)]
        rows.append({"id": f"7-{i}", "question_stem": words(0 if i == 4 else 1, 9) + space(), "choices": {"text": texts, "label": list("ABCD")},
                     "answerKey": space() + rnd.choice("ABCD")})
    return rows


def boolq(n):
    return [{"question": words(1, 6), "passage": words(0 if i % 8 == 3 else 3, 20) + space(), "idx": i, "label": rnd.randint(0, 1)} for i in range(n)]


def commonsense_qa(n):
    rows = []
    for i in range(n):
        choices = {"label": list("ABCDE"), "text": [words(0 if i % 6 == 2 else 1, 3) for _ in range(5)]}
        rows.append({"id": f"{i:x}", "question": space() + words(1, 9) + space(), "question_concept": words(1, 1), "choices": choices,
                     "answerKey": "F" if i % 10 == 7 else rnd.choice("ABCDE")})
    return rows


def sciq(n):
    rows = []
    for i in range(n):
        answers = [words(0 if i % 9 == 5 else 1, 3) for _ in range(4)]
        if i % 5 == 1:
            answers[3] = answers[0]
        rows.append({"question": words(1, 8), "distractor3": answers[2], "distractor1": answers[0], "distractor2": answers[1],
                     "correct_answer": answers[3], "support": space() + words(0, 15) + space()})
    return rows


def lambada(n):
    texts = ["", "one", " ", "two ", " three", "a  b", "tab\tword", "line\nend now", "a\u00a0b c\u00a0d"]
    return [{"text": texts[i // 3] if i % 3 == 1 and i // 3 < len(texts) else words(2, 20)} for i in range(n)]


# Characters whose capital, title case or small letter is not simple.
CASES = ["\u00dfE", "\ufb03X", "\u01c6\u017d", "\u0149A", "\u1fb3\u0391\u03a3", "\u1fb7A", "\u0390B", "\u10d0\u1c90", "\u0130I", "\u03a3\u03a3", "\u0587", "\u1f95", "HE"]
MARKS = ["[title]", " [title]", "[header]", " [substeps]", "[step]", "[", "]", "[]", "[a\nb]", "  ", "   ", "[[x]]", " [title] [step]"]


def marked(low, high):
    parts = [rnd.choice(MARKS) if rnd.random() < 0.3 else words(1, 3) for _ in range(rnd.randint(low, high))]
    return space() + rnd.choice(["", " "]).join(parts) + space()


def hellaswag(n):
    rows = []
    for i in range(n):
        first = marked(1, 4)
        second = "" if i % 5 == 3 else rnd.choice(CASES + ["", ""]) + marked(0, 4)
        # The reference fails on an empty choice in the first row, and takes one in the others.
        endings = [words(1, 4) if i == 0 else marked(0 if i % 4 == 2 else 1, 4) for _ in range(4)]
        if i % 6 == 1:
            endings[2] = endings[0] + " [step]"
        rows.append({"ind": i, "activity_label": words(1, 2) + space(), "ctx_a": first, "ctx_b": second, "ctx": first + " " + second,
                     "endings": endings, "source_id": f"wikihow~{i}", "split": "val", "split_type": "indomain", "label": f" {i % 4} " if i % 11 == 7 else str(rnd.randint(0, 3))})
    return rows


def winogrande(n):
    rows = []
    for i in range(n):
        before, after = words(0 if i % 6 == 2 else 1, 6), words(0 if i % 7 == 4 else 1, 6)
        gap = ["_", " _ ", " _", "_ ", "__", "_\u00a0", " _ or _ "][i % 7]
        options = [words(1, 2), words(0 if i % 9 == 5 else 1, 2)]
        if i % 8 == 3:
            options[1] = options[0]
        rows.append({"sentence": before + gap + space() + after + space(), "option1": options[0], "option2": options[1], "answer": rnd.choice("12")})
    return rows


def truthfulqa(n):
    rows = []
    for i in range(n):
        first = [words(1, 5) for _ in range(rnd.randint(1, 6))]
        second = [words(1, 5) for _ in range(rnd.randint(1, 14))]
        labels = [rnd.randint(0, 1) for _ in second]
        if i % 6 == 2:
            labels = [i % 4 // 2] * len(second)  # All right, or all wrong.
        if i % 5 == 1:
            second[-1] = second[0]
        rows.append({"question": words(0 if i == 3 else 1, 8) + space(), "mc1_targets": {"choices": first, "labels": [1] + [0] * (len(first) - 1)},
                     "mc2_targets": {"choices": second, "labels": labels}})
    return rows


PIECES = ["s '", " ' s", "/' 7/", "/'[0-9]/", " @-@ ", " @,@ ", "@.@", " @.@ ", " : ", " ; ", " . ", " ! ", " ? ", " , ", "( a )", "(\u00a0b\x1c)", "( (c) )", "[ d ]",
          "[e\n ]", "{ f }", "{\tg}", "\" h \"", "\"\n\"", "' i '", "'", "\"", "= = = = J = = = =", "= = K = =", "= L =", " \u00b0 ", " \n", "\n ", " \n \n ", " N ",
          " N N ", " 's", " 's ' t", "(", ")", " 1 @,@ 000 @.@ 5 ", "$1 \\1 ${x} ", "word", " word ", "\u00c9t\u00e9", "\u4eac ", "  ", "\r\n"]


def wikitext(n):
    rows = []
    for i in range(n):
        page = "".join(rnd.choice(PIECES) for _ in range(rnd.randint(0 if i % 9 == 3 else 3, 30)))
        rows.append({"page": "" if i == 5 else " \n" if i == 6 else page})
    return rows


ANSWERS = ["7", "12", "\\frac{1}{2}", "1/2", "\\frac12", "\\tfrac1{2}", "0.5", ".5", "\\frac1", "\\frac", "x=7", "k = 12", "abc=7", "x=y=7", "\\sqrt4", "\\sqrt{4}",
           "\\sqrt", "7\\text{ miles}", "7\\text{ a}\\text{ b}", "90^\\circ", "90^{\\circ}", "50\\%", "\\$7", "\\left(7\\right)", "(7)", "1/x", "01/2", "-1/2", "+1/2", "1_0/2",
           "10/2", "\u0663/4", "3/4", "1/2/3", "", " 7 ", "7\n", "\\!7", "\\\\frac{1}{2}", "{.5}", "{0.5}", "a .5", "a0.5", "\\frac{1}2", "\\dfrac{1}{2}", "\u00e9/2", "x=", "=", "-/2",
           "\\frac\u00e92", "\\sqrt\u4eac", "007", "9" * 30 + "/2", "\t1/2"]
FORMS = ["\\boxed{%s}", "So $%s$", "$a$ and $%s$", "%s", "\\boxed %s$ done", "\\boxed{1} then \\boxed{%s}", "\\fbox{%s}", "\\boxed{%s", "}\\boxed{%s} x", "\\boxed{{%s}}", "$%s",
         "\\boxed\n{%s}", "\\boxed{%s} \\fbox{3}", "$1$ \\boxedx{%s}", "The answer is $\\boxed{%s}$.", "\\boxed{2} \\boxed %s", "$$%s$$"]


def aime(question, answer, numbers=False):
    def rows(n):
        out = []
        for i in range(n):
            target = rnd.choice(ANSWERS)
            reply = target if rnd.random() < 0.5 else rnd.choice(ANSWERS)
            if numbers:
                target = rnd.choice([7, 12, 33])
                reply = str(target) if rnd.random() < 0.5 else reply
            # The mock model replies with what stands in these brackets.
            row = {question: f"{words(1, 4)} \u27e6{rnd.choice(FORMS) % reply}\u27e7", answer: target}
            out.append({"ID": f"row-{i}", **row})
        return out

    return rows


def mmlu(n):
    rows = []
    for i in range(n):
        choices = [words(0 if i % 5 == 2 else 1, 4) for _ in range(4)]
        rows.append({"question": space() + words(1, 8) + space(), "subject": "x", "choices": choices, "answer": rnd.randint(0, 3)})
    return rows


def swag(n):
    rows = []
    for i in range(n):
        endings = [words(1 if i == 0 else rnd.randint(0, 1), 6) for _ in range(4)]
        rows.append({"video-id": f"v{i}", "startphrase": words(0 if i == 2 else 1, 8) + space(), **{f"ending{j}": e for j, e in enumerate(endings)}, "label": rnd.randint(0, 3)})
    return rows


def social_iqa(n):
    return [{"context": words(1, 9) + space(), "question": words(0 if i == 4 else 1, 5), "answerA": words(1, 3), "answerB": words(1, 3), "answerC": words(1, 3),
             "label": rnd.choice("123") + ("\n" if i % 6 == 5 else "")} for i in range(n)]


def copa(n):
    rows = []
    for i in range(n):
        choices = [rnd.choice(CASES + ["The ", " A ", "\u03a3A", "\u1e9eX", "I"]) + words(0, 5) for _ in range(2)]
        if i % 8 == 3:
            choices[1] = choices[0]
        rows.append({"premise": ["", ".", " \x1c"][i % 3] if i % 11 == 6 else space() + words(1, 7) + rnd.choice([".", "", ". ", "!", ".\u2003", ".\x1d"]),
                     "choice1": choices[0], "choice2": choices[1], "question": rnd.choice(["cause", "effect"]), "idx": i, "label": rnd.randint(0, 1)})
    return rows


def premises(classes):
    return lambda n: [{"premise": words(0 if i == 3 else 1, 15) + space(), "hypothesis": words(0 if i == 4 else 1, 6), "idx": i, "label": rnd.choice(classes)} for i in range(n)]


def wic(n):
    rows = []
    for i in range(n):
        first = words(1, 8)
        start = rnd.randint(0, len(first) + 2)
        rows.append({"word": "x", "sentence1": first, "sentence2": words(1, 8), "start1": start, "start2": 0, "end1": start + rnd.randint(0, 6), "end2": 3, "idx": i, "label": rnd.randint(0, 1)})
    return rows


def logiqa(n):
    return [{"label": space() + rnd.choice("abcd") + space(), "context": space() + words(1, 12), "question": words(0 if i == 4 else 1, 6),
             "options": [words(1 if i == 0 else rnd.randint(0, 1), 4) for _ in range(4)]} for i in range(n)]


def race(n):
    rows = []
    for i in range(n):
        problems = []
        for _ in range(rnd.randint(1, 4)):
            question = space() + words(0, 5) + rnd.choice(["  _  .", " _ .", "  _  . ", "?", "  _  .", ""])
            problems.append({"question": question, "answer": rnd.choice("ABCD"), "options": [words(1, 3) + space() for _ in range(4)]})
        # As Python writes it, and in another way that it reads.
        text = str(problems) if i % 4 else json.dumps(problems, ensure_ascii=False)
        rows.append({"article": words(1, 15) + space(), "problems": text})
    return rows


TOPICS = ["Paris", "the End", "The Cat", "An \u00c9t\u00e9", "it's", "\"x\"", "it's \"x\"", "a\\b", "\u6771\u4eac", "U.S.", "\u0130", "tab\there", "new\nline", "\u200b", "\U0001f600", "e\u0301", "42", "4-2", "", " x "]


def said(answers):
    """What the mock model replies: an answer, or nearly one."""
    answer = rnd.choice(answers if rnd.random() < 0.7 else TOPICS)
    return rnd.choice(["%s", " %s", "%s.", "the %s", "%s!\nQ: next", "\t%s", "%s, or not", "The the %s"]) % rnd.choice([answer, answer.upper(), answer.lower()])


def triviaqa(n):
    rows = []
    for i in range(n):
        aliases = rnd.sample(TOPICS, rnd.randint(1, 5))
        answer = {"aliases": aliases, "value": aliases[0], "normalized_aliases": [a.lower() for a in aliases], "type": "WikipediaEntity"}
        rows.append({"question": f"{words(1, 6)} \u27e6{said(aliases)}\u27e7", "question_id": f"tc_{i}", "answer": answer})
    return rows


def nq_open(n):
    rows = []
    for _ in range(n):
        answers = rnd.sample(TOPICS, rnd.randint(1, 4))
        rows.append({"question": f"{words(1, 6)} \u27e6{said(answers)}\u27e7", "answer": answers})
    return rows


BOXES = ["\\boxed{%s}", "So $\\boxed{%s}$.", "\\boxed{1} then \\boxed{%s}", "It is $\\boxed %s$", "\\boxed{%s} and {x}", "\\fbox{1} \\boxed{%s}"]


def hendrycks_math(n):
    rows = []
    for i in range(n):
        right = rnd.choice(ANSWERS)
        answer = right if rnd.random() < 0.6 else rnd.choice(ANSWERS)
        reply = rnd.choice(["%s", "$%s$", "so $%s$.", "$a$ is $%s$", "\\boxed{%s}", "$%s", "%s Problem: $1$"]) % answer
        rows.append({"problem": f"{words(1, 4)} \u27e6{reply}\u27e7", "level": "Level 1", "type": "Algebra", "solution": words(0, 5) + rnd.choice(BOXES) % right})
    return rows


def math500(n):
    return [{"problem": row["problem"], "solution": row["solution"], "answer": "?", "subject": "Algebra"} for row in hendrycks_math(n)]


CATEGORIES = ["biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history", "law", "math", "other", "philosophy", "physics", "psychology"]


def mmlu_pro(n):
    rows = []
    for i in range(n):
        options = [space() + words(0, 3) + space() for _ in range(rnd.randint(3, 12))]
        right = rnd.randrange(min(len(options), 10))
        reply = rnd.choice(["the answer is (%s).", "The answer is %s", "answer is %s) or answer is (A)", "(%s)", "answer is  (%s)", "the answer is (%s)Question: x"])
        start = rnd.choice(["A: Let's think step by step. ", "A: Let's think step by step.", "Let's think. ", ""])
        rows.append({"question_id": i, "question": f"{words(1, 5)} \u27e6{reply % rnd.choice('ABCDK' + 'ABCDEFGHIJ'[right] * 4)}\u27e7", "options": options, "answer": "ABCDEFGHIJ"[right],
                     "answer_index": right, "cot_content": f"{start}{words(1, 6)} The answer is ({rnd.choice('ABC')}).", "category": CATEGORIES[i % 14] if i % 17 else rnd.choice(["cooking", "Math"])})
    return rows
