//! The architectures of llama.cpp: what their tensors are called there and in files of Hugging Face, and how they differ.
//!
//! A line of a table serves reading and writing. Names are without `.weight` and `.bias`, which are the same in both.

/// An architecture of llama.cpp.
#[derive(Debug)]
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// `model_type`s of Hugging Face that are written as it; the first one is read.
    pub model_types: &'static [&'static str],
    /// The path of the blocks: `model.layers`.
    pub blocks: &'static str,
    /// Tensors outside of blocks, in GGUF and in Hugging Face.
    pub top: &'static [(&'static str, &'static str)],
    /// Tensors of a block, without `blk.N` and without the path of the block.
    pub block: &'static [(&'static str, &'static str)],
    /// How rows or numbers differ.
    pub differs: Differs,
}

/// How the tensors of an architecture differ from those of Hugging Face, beside their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// Not at all.
    Nothing,
    /// The two halves of a head that rotate together are interleaved in query and key.
    Interleaved,
    /// Weights of norms are one larger.
    NormsPlusOne,
    /// Matrices of blocks are transposed: `Conv1D` of GPT-2.
    Transposed,
    /// Query, key and value of a head lie together in Hugging Face, and one after the other for all heads here.
    QkvByHead,
    /// The same by groups: the queries of a group, its key, its value.
    QkvByGroup,
}

const TOP: &[(&str, &str)] = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

const BLOCK: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Norms before and after both sublayers.
const SANDWICH: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

const FALCON_TOP: &[(&str, &str)] = &[
    ("token_embd", "transformer.word_embeddings"),
    ("output_norm", "transformer.ln_f"),
    ("output", "lm_head"),
];

/// All of them. Falcon is there twice: with one norm a block, and with two.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "llama",
        model_types: &["llama", "mistral"],
        blocks: "model.layers",
        top: TOP,
        block: BLOCK,
        differs: Differs::Interleaved,
    },
    Architecture {
        name: "qwen2",
        model_types: &["qwen2"],
        blocks: "model.layers",
        top: TOP,
        block: BLOCK,
        differs: Differs::Nothing,
    },
    Architecture {
        name: "qwen3",
        model_types: &["qwen3"],
        blocks: "model.layers",
        top: TOP,
        block: BLOCK,
        differs: Differs::Nothing,
    },
    Architecture {
        name: "smollm3",
        model_types: &["smollm3"],
        blocks: "model.layers",
        top: TOP,
        block: BLOCK,
        differs: Differs::Interleaved,
    },
    Architecture {
        name: "granite",
        model_types: &["granite"],
        blocks: "model.layers",
        top: TOP,
        block: BLOCK,
        differs: Differs::Interleaved,
    },
    Architecture {
        name: "gemma",
        model_types: &["gemma"],
        blocks: "model.layers",
        top: TOP,
        block: BLOCK,
        differs: Differs::NormsPlusOne,
    },
    Architecture {
        name: "gemma2",
        model_types: &["gemma2"],
        blocks: "model.layers",
        top: TOP,
        block: SANDWICH,
        differs: Differs::NormsPlusOne,
    },
    Architecture {
        name: "gemma3",
        model_types: &["gemma3_text"],
        blocks: "model.layers",
        top: TOP,
        block: SANDWICH,
        differs: Differs::NormsPlusOne,
    },
    Architecture {
        name: "olmo2",
        model_types: &["olmo2"],
        blocks: "model.layers",
        top: TOP,
        block: SANDWICH,
        differs: Differs::Nothing,
    },
    Architecture {
        name: "phi2",
        model_types: &["phi"],
        blocks: "model.layers",
        top: &[
            ("token_embd", "model.embed_tokens"),
            ("output_norm", "model.final_layernorm"),
            ("output", "lm_head"),
        ],
        block: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.dense"),
            ("ffn_up", "mlp.fc1"),
            ("ffn_down", "mlp.fc2"),
        ],
        differs: Differs::Nothing,
    },
    Architecture {
        name: "phi3",
        model_types: &["phi3"],
        blocks: "model.layers",
        top: TOP,
        block: &[
            ("attn_norm", "input_layernorm"),
            ("attn_qkv", "self_attn.qkv_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_up", "mlp.gate_up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
        differs: Differs::Nothing,
    },
    Architecture {
        name: "gpt2",
        model_types: &["gpt2"],
        blocks: "transformer.h",
        top: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        block: &[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ],
        differs: Differs::Transposed,
    },
    Architecture {
        name: "gptneox",
        model_types: &["gpt_neox"],
        blocks: "gpt_neox.layers",
        top: &[
            ("token_embd", "gpt_neox.embed_in"),
            ("output_norm", "gpt_neox.final_layer_norm"),
            ("output", "embed_out"),
        ],
        block: &[
            ("attn_norm", "input_layernorm"),
            ("attn_qkv", "attention.query_key_value"),
            ("attn_output", "attention.dense"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_up", "mlp.dense_h_to_4h"),
            ("ffn_down", "mlp.dense_4h_to_h"),
        ],
        differs: Differs::QkvByHead,
    },
    Architecture {
        name: "falcon",
        model_types: &["falcon"],
        blocks: "transformer.h",
        top: FALCON_TOP,
        block: &[
            ("attn_norm", "input_layernorm"),
            ("attn_qkv", "self_attention.query_key_value"),
            ("attn_output", "self_attention.dense"),
            ("ffn_up", "mlp.dense_h_to_4h"),
            ("ffn_down", "mlp.dense_4h_to_h"),
        ],
        differs: Differs::QkvByGroup,
    },
    Architecture {
        name: "falcon",
        model_types: &["falcon"],
        blocks: "transformer.h",
        top: FALCON_TOP,
        block: &[
            ("attn_norm", "ln_mlp"),
            ("attn_norm_2", "ln_attn"),
            ("attn_qkv", "self_attention.query_key_value"),
            ("attn_output", "self_attention.dense"),
            ("ffn_up", "mlp.dense_h_to_4h"),
            ("ffn_down", "mlp.dense_4h_to_h"),
        ],
        differs: Differs::QkvByGroup,
    },
    Architecture {
        name: "bert",
        model_types: &["bert"],
        blocks: "encoder.layer",
        top: &[
            ("token_embd", "embeddings.word_embeddings"),
            ("position_embd", "embeddings.position_embeddings"),
            ("token_types", "embeddings.token_type_embeddings"),
            ("token_embd_norm", "embeddings.LayerNorm"),
        ],
        block: &[
            ("attn_q", "attention.self.query"),
            ("attn_k", "attention.self.key"),
            ("attn_v", "attention.self.value"),
            ("attn_output", "attention.output.dense"),
            ("attn_output_norm", "attention.output.LayerNorm"),
            ("ffn_up", "intermediate.dense"),
            ("ffn_down", "output.dense"),
            ("layer_output_norm", "output.LayerNorm"),
        ],
        differs: Differs::Nothing,
    },
];

impl Architecture {
    /// Whether the file has the body of an encoder alone, by the names of the bare model. llama.cpp computes embeddings with it.
    pub fn is_encoder(&self) -> bool {
        self.name == "bert"
    }

    /// What the names of a decoder's body begin with: `transformer.`, `model.`; empty for an encoder.
    pub fn body(&self) -> &'static str {
        match self.blocks.split_once('.') {
            Some((body, _)) if !self.is_encoder() => &self.blocks[..=body.len()],
            _ => "",
        }
    }

    /// The architecture of a name; `two_norms` tells which of the two Falcons.
    pub fn of_name(name: &str, two_norms: bool) -> Option<&'static Self> {
        let mut found = ARCHITECTURES.iter().filter(|one| one.name == name);
        let first = found.next()?;
        Some(found.next().filter(|_| two_norms).unwrap_or(first))
    }

    /// The architecture that a `model_type` is written as.
    pub fn of_model_type(model_type: &str, two_norms: bool) -> Option<&'static Self> {
        let found = ARCHITECTURES
            .iter()
            .find(|one| one.model_types.contains(&model_type))?;
        Self::of_name(found.name, two_norms)
    }

    /// Their names.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = ARCHITECTURES.iter().map(|one| one.name).collect();
        names.dedup();
        names
    }

    /// From a name of GGUF to that of Hugging Face.
    pub fn to_hf(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        if let Some(rest) = stem.strip_prefix("blk.") {
            let (block, stem) = rest.split_once('.')?;
            let block: usize = block.parse().ok()?;
            let (_, theirs) = self.block.iter().find(|(ours, _)| *ours == stem)?;
            return Some(format!("{}.{block}.{theirs}.{kind}", self.blocks));
        }
        let (_, theirs) = self.top.iter().find(|(ours, _)| *ours == stem)?;
        Some(format!("{theirs}.{kind}"))
    }

    /// From a name of Hugging Face to that of GGUF.
    pub fn to_gguf(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        let in_block = stem
            .strip_prefix(self.blocks)
            .and_then(|rest| rest.strip_prefix('.'));
        if let Some((block, stem)) = in_block.and_then(|rest| rest.split_once('.')) {
            let block: usize = block.parse().ok()?;
            let (ours, _) = self.block.iter().find(|(_, theirs)| *theirs == stem)?;
            return Some(format!("blk.{block}.{ours}.{kind}"));
        }
        let (ours, _) = self.top.iter().find(|(_, theirs)| *theirs == stem)?;
        Some(format!("{ours}.{kind}"))
    }

    /// How the tensor of a GGUF name differs from that of Hugging Face.
    pub fn change(&self, name: &str, heads: Heads) -> Change {
        let is = |stem: &str| {
            let (start, _) = name.rsplit_once('.').unwrap_or((name, ""));
            start.ends_with(&format!(".{stem}"))
        };
        let Heads {
            heads,
            kv_heads,
            width,
        } = heads;
        match self.differs {
            Differs::Interleaved if is("attn_q") => Change::Rows(interleaved(heads, width)),
            Differs::Interleaved if is("attn_k") => Change::Rows(interleaved(kv_heads, width)),
            Differs::NormsPlusOne if name.ends_with("norm.weight") => Change::PlusOne,
            Differs::Transposed
                if name.starts_with("blk.")
                    && name.ends_with(".weight")
                    && !name.ends_with("norm.weight") =>
            {
                Change::Transposed
            }
            Differs::QkvByHead if is("attn_qkv") => Change::Rows(by_group(heads, 1, width)),
            Differs::QkvByGroup if is("attn_qkv") => {
                Change::Rows(by_group(kv_heads, heads / kv_heads.max(1), width))
            }
            _ => Change::Nothing,
        }
    }
}

/// The attention heads of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Of queries.
    pub heads: usize,
    /// Of keys and values.
    pub kv_heads: usize,
    /// Features of each.
    pub width: usize,
}

/// How a tensor differs from that of Hugging Face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// Row `i` of Hugging Face is this row here.
    Rows(Vec<usize>),
    /// Its numbers are one larger here.
    PlusOne,
    /// It is transposed here.
    Transposed,
}

/// Row `half·p + j` of a head of Hugging Face is row `2·j + p` here, for `p` of 0 and 1.
fn interleaved(heads: usize, width: usize) -> Vec<usize> {
    let half = width / 2;
    let rows = (0..heads).flat_map(|head| {
        (0..2).flat_map(move |p| (0..half).map(move |j| head * width + 2 * j + p))
    });
    rows.collect()
}

/// Hugging Face has for each group its queries, its key and its value; here all queries come first, then all keys, then all
/// values.
fn by_group(groups: usize, queries: usize, width: usize) -> Vec<usize> {
    let mut rows = Vec::with_capacity(groups * (queries + 2) * width);
    for group in 0..groups {
        let query = group * queries * width;
        rows.extend(query..query + queries * width);
        for part in 0..2 {
            let first = (groups * queries + part * groups + group) * width;
            rows.extend(first..first + width);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for one in ARCHITECTURES {
            let top = one
                .top
                .iter()
                .map(|(ours, theirs)| (format!("{ours}.weight"), format!("{theirs}.weight")));
            let block = one.block.iter().map(|(ours, theirs)| {
                (
                    format!("blk.7.{ours}.bias"),
                    format!("{}.7.{theirs}.bias", one.blocks),
                )
            });
            for (ours, theirs) in top.chain(block) {
                assert_eq!(one.to_hf(&ours).as_deref(), Some(&theirs[..]));
                assert_eq!(one.to_gguf(&theirs).as_deref(), Some(&ours[..]));
            }
        }
        let llama = Architecture::of_name("llama", false).expect("known");
        assert_eq!(llama.to_hf("blk.x.attn_q.weight"), None);
        assert_eq!(llama.to_gguf("model.layers.0.mlp.experts.weight"), None);
    }

    #[test]
    fn rows_are_those_of_the_converter() {
        // llama.cpp: reshape(heads, 2, width / 2).swapaxes(1, 2), so row 0, 2, 1, 3 of a head of four.
        assert_eq!(interleaved(2, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
        // Two groups of two queries, one feature each: q q k v q q k v there, q q q q k k v v here.
        assert_eq!(by_group(2, 2, 1), [0, 1, 4, 6, 2, 3, 5, 7]);
    }
}
