"""What the pipeline question-answering of transformers 4.57, the last version that has it, answers with the model of pipelines.py.

torch 2.15.0, transformers 4.57.3, tokenizers 0.22.1. Run after pipelines.py: python answers.py. Writes answers.json.
"""

import importlib.metadata
import json
from pathlib import Path

from transformers import AutoTokenizer, BertForQuestionAnswering, pipeline

assert importlib.metadata.version("transformers") == "4.57.3"
HERE = Path(__file__).parent
CONTEXT = "Anna Berg bought the blue kettle in Hamburg. It was wonderful, but the handle broke after one week."
LONG = CONTEXT + " The river Elbe flows through Dresden and Hamburg into the Nordsee. Über den Wolken boils the water quickly."
answerer = pipeline("question-answering", model=BertForQuestionAnswering.from_pretrained(HERE / "answers"), tokenizer=AutoTokenizer.from_pretrained(HERE / "answers"))
cases = []
for question in ("What was bought?", "  Where does the river end?", "Who broke the handle?"):
    for context in (CONTEXT, LONG):
        for options in (
            {}, {"top_k": 4}, {"top_k": 3, "handle_impossible_answer": True}, {"top_k": 2, "max_answer_len": 3, "align_to_words": False},
            {"top_k": 3, "max_seq_len": 24, "doc_stride": 6},
        ):
            output = answerer(question=question, context=context, **options)
            cases.append(dict(question=question, context=context, options=options, output=output if isinstance(output, list) else [output]))
(HERE / "answers.json").write_text(json.dumps(cases, ensure_ascii=False))
