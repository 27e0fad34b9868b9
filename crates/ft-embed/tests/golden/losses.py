"""The losses of sentence-transformers on small random embeddings, with their gradients.

torch 2.15.0, sentence-transformers 6.2.0. Run from anywhere: python losses.py

losses.safetensors holds the inputs (columns c0 ... c3 [5, 6], guide g0 ... g2 [5, 4], labels) and of each case
NAME the loss, `NAME` [1], and its gradients, `NAME.c0` ... . Cases of lists have scores `l0`, `l1`, and labels in
the test.
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers.cross_encoder import losses as ce
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.losses import gist_embed

for package, pinned in {"torch": "2.15.0", "sentence-transformers": "6.2.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

HERE = Path(__file__).parent
torch.manual_seed(3)
N, D = 5, 6
columns = [torch.randn(N, D) for _ in range(4)]
columns[1] = columns[0] + 0.7 * columns[1]
guides = [torch.randn(N, 4) for _ in range(3)]
guides[1] = guides[0] + guides[1]
golden = {f"c{i}": c for i, c in enumerate(columns)} | {f"g{i}": g for i, g in enumerate(guides)}
binary = torch.tensor([1, 0, 1, 0, 1])
scores = torch.tensor([0.9, 0.1, 0.5, 0.5, 0.3])
classes = torch.tensor([0, 1, 0, 1, 1])
margins = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5])
golden |= {"binary": binary.float(), "scores": scores, "classes": classes, "margins": margins}


class Fake(torch.nn.Module):
    """A model that is asked for nothing but attributes."""

    device = torch.device("cpu")


def case(name, loss, count, labels=None):
    inputs = [c.clone().requires_grad_() for c in columns[:count]]
    value = loss(inputs, labels)
    value.backward()
    golden[name] = value.detach().reshape(1)
    for i, x in enumerate(inputs):
        golden[f"{name}.c{i}"] = x.grad if x.grad is not None else torch.zeros_like(x)


model = Fake()
ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
mnrl = losses.MultipleNegativesRankingLoss
case("mnrl", mnrl(model).compute_loss_from_embeddings, 2)
case("mnrl_negatives", mnrl(model).compute_loss_from_embeddings, 4)
case("mnrl_all", mnrl(model, scale=10.0, directions=ALL).compute_loss_from_embeddings, 4)
case("mnrl_symmetric", mnrl(model, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction").compute_loss_from_embeddings, 3)
for mode in ("in_batch_negatives", "hard_negatives", "all_negatives"):
    case(f"mnrl_{mode}", mnrl(model, hardness_mode=mode, hardness_strength=5.0).compute_loss_from_embeddings, 4)


def gist(**settings):
    loss = losses.GISTEmbedLoss.__new__(losses.GISTEmbedLoss)
    torch.nn.Module.__init__(loss)
    defaults = dict(temperature=0.01, margin_strategy="absolute", margin=0.0, contrast_anchors=True, contrast_positives=True)
    for key, value in (defaults | settings).items():
        setattr(loss, key, value)
    loss.similarity_fct = torch.nn.CosineSimilarity(dim=-1)
    loss.cross_entropy_loss = torch.nn.CrossEntropyLoss()
    loss.must_retokenize, loss.gather_across_devices = False, False
    loss.model, loss.guide = "model", "guide"

    def compute(inputs, labels):
        given = {"model": inputs, "guide": guides[: len(inputs)]}
        gist_embed.embed_columns = lambda which, features: given[which]
        return loss([{} for _ in inputs], labels)

    return compute


case("gist", gist(temperature=0.1), 3)
case("gist_relative", gist(temperature=0.1, margin_strategy="relative", margin=0.2), 2)
case("gist_plain", gist(temperature=0.1, contrast_anchors=False, contrast_positives=False), 3)
case("triplet", losses.TripletLoss(model, triplet_margin=5).compute_loss_from_embeddings, 3)
case("contrastive", losses.ContrastiveLoss(model).compute_loss_from_embeddings, 2, binary)
case("online_contrastive", losses.OnlineContrastiveLoss(model).compute_loss_from_embeddings, 2, binary)
case("online_contrastive_alike", losses.OnlineContrastiveLoss(model).compute_loss_from_embeddings, 2, torch.ones(N))
case("cosine", losses.CosineSimilarityLoss(model).compute_loss_from_embeddings, 2, scores)
case("cosent", losses.CoSENTLoss(model).compute_loss_from_embeddings, 2, scores)
case("angle", losses.AnglELoss(model).compute_loss_from_embeddings, 2, scores)
case("margin_mse", losses.MarginMSELoss(model).compute_loss_from_embeddings, 3, margins)
several = torch.stack([scores, margins, scores * 2], 1)
golden["several"] = several
case("margin_mse_scores", losses.MarginMSELoss(model).compute_loss_from_embeddings, 4, several)
case("mse", losses.MSELoss(model).compute_loss_from_embeddings, 1, [columns[1]])
for name, kind in {
    "batch_all": losses.BatchAllTripletLoss,
    "batch_hard": losses.BatchHardTripletLoss,
    "batch_semi_hard": losses.BatchSemiHardTripletLoss,
}.items():
    case(name, kind(model, margin=1.0).compute_loss_from_embeddings, 1, classes)
case("batch_hard_soft", losses.BatchHardSoftMarginTripletLoss(model).compute_loss_from_embeddings, 1, classes)


def matryoshka(inputs, labels):
    total = 0.0
    for dims, weight in ((6, 1.0), (4, 0.5), (2, 0.25)):
        cut = [torch.nn.functional.normalize(x[:, :dims], dim=-1) for x in inputs]
        total = total + weight * mnrl(model).compute_loss_from_embeddings(cut, labels)
    return total


case("matryoshka", matryoshka, 3)


def divergence(inputs, labels):
    earlier, last = inputs
    last = torch.nn.functional.softmax(last / 0.3, dim=-1).detach()
    return torch.nn.functional.kl_div(torch.nn.functional.log_softmax(earlier / 0.3, dim=-1), last, reduction="batchmean") * 0.3


case("layer_divergence", divergence, 2)

# Cross-encoders: a model whose scores are given.
lists = [torch.tensor([0.3, -1.2, 2.0, 0.1]), torch.tensor([0.7, 0.1])]
list_labels = [torch.tensor([0.0, 2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0])]


def list_case(name, make):
    inputs = [x.clone().requires_grad_() for x in lists]

    class Model:
        device = torch.device("cpu")
        num_labels = 1

        def preprocess(self, pairs, **_):
            return {"pairs": torch.tensor([int(d) for _, d in pairs])}

        def __call__(self, tokens):
            return {"scores": torch.cat(inputs)[tokens["pairs"]][:, None]}

    loss = make(Model())
    value = loss((["q0", "q1"], [["0", "1", "2", "3"], ["4", "5"]]), [x.clone() for x in list_labels])
    value.backward()
    golden[name] = value.detach().reshape(1)
    for i, x in enumerate(inputs):
        golden[f"{name}.l{i}"] = x.grad


for name, kind in {
    "lambda": ce.LambdaLoss,
    "rank_net": ce.RankNetLoss,
    "list_net": ce.ListNetLoss,
    "list_mle": lambda m: ce.ListMLELoss(m, respect_input_order=True),
    "position_list_mle": lambda m: ce.PListMLELoss(m, respect_input_order=True),
}.items():
    list_case(name, kind)
golden |= {f"l{i}": x for i, x in enumerate(lists)} | {f"y{i}": y for i, y in enumerate(list_labels)}

logits = torch.randn(N, requires_grad=True)
value = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))(logits, scores)
value.backward()
golden |= {"logits": logits.detach(), "binary_cross_entropy": value.detach().reshape(1), "binary_cross_entropy.logits": logits.grad}

save_file({key: value.detach().contiguous() for key, value in golden.items()}, HERE / "losses.safetensors")
