//! An embedding model: a body, pooling, and what comes after it.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::layers::Embedding;
use ft_core::safetensors_folder::{self, Weights};
use ft_core::{
    AutoBackbone, Backbone, Keys, Parts, SaveOptions, Tokenizer, Truncation, load_pretrained,
};
use ft_data::{TextLayout, longest_input, with_input_names};
use rayon::prelude::*;

use crate::folder::{
    Kind, SentenceConfig, read_modules, read_transformer_settings, write_modules,
    write_transformer_settings,
};
use crate::{Dense, Error, Pooling, Result, Similarity, TextBatch, TextTokens, text_layout};

/// A model that turns texts into vectors.
///
/// It is a module: the trainer of ft-train trains it, and ft-peft adapts it, as any other model. Paths of parameters are
/// those of the body, and `dense.0.linear` and so on of the layers after pooling.
///
/// ```no_run
/// use std::path::Path;
///
/// use burn::tensor::Device;
/// use ft_embed::EmbeddingModel;
///
/// let model = EmbeddingModel::from_pretrained(Path::new("all-MiniLM-L6-v2"), &Device::default())?;
/// let queries = model.encode_queries(&["How tall is the tower?"])?;
/// let documents = model.encode_documents(&["It is 330 metres high.", "Cats sleep a lot."])?;
/// assert_eq!(documents.dims(), queries.dims());
/// # Ok::<(), ft_embed::Error>(())
/// ```
#[derive(Module, Parts, Debug)]
#[parts(output = "")]
pub struct EmbeddingModel {
    _body: Body,
    dense: Vec<Dense>,
    #[module(skip)]
    tokenizer: Tokenizer,
    #[module(skip)]
    settings: Settings,
}

#[derive(Module, Parts, Debug)]
#[allow(clippy::large_enum_variant)] // there is one of them in a model
enum Body {
    Transformer(AutoBackbone),
    Static(StaticTable),
}

/// A vector a token, and nothing that looks at several of them.
#[derive(Module, Parts, Debug)]
#[parts(output = "")]
struct StaticTable {
    embedding: Embedding,
}

/// What follows pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Dense(usize),
    Normalize,
}

#[derive(Clone, Debug)]
struct Settings {
    pooling: Pooling,
    after: Vec<After>,
    max_seq_length: usize,
    do_lower_case: bool,
    sentence: SentenceConfig,
}

impl EmbeddingModel {
    /// Loads a folder of sentence-transformers, of version 6 or older, or a plain folder of a model. The pooling of a plain
    /// folder is the last token if it is that of a causal language model, else the mean.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, the weights do not fit, or a module is not supported.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        Self::from_pretrained_with(folder, device, Weights::F32)
    }

    /// [`from_pretrained`](Self::from_pretrained) with the weights of the body held as `weights` says.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let (modules, plain) = match read_modules(folder)? {
            Some(modules) => (modules, Pooling::default()),
            None => (
                vec![(Kind::Transformer, folder.to_path_buf())],
                Pooling::of_plain_folder(folder)?,
            ),
        };
        let list = folder.join("modules.json");
        let Some((first, rest)) = modules.split_first() else {
            return Err(Error::file(&list, "there are no modules"));
        };
        let (body, tokenizer, max_seq_length, do_lower_case) = match first.0 {
            Kind::Transformer => transformer(&first.1, device, weights)?,
            Kind::StaticEmbedding => static_table(&first.1, device)?,
            other => {
                let class = other.class();
                return Err(Error::file(
                    &list,
                    format!(
                        "the first module is {class}: it must be Transformer or StaticEmbedding"
                    ),
                ));
            }
        };
        let mut pooling = None;
        let (mut dense, mut after) = (Vec::new(), Vec::new());
        for (kind, path) in rest {
            match kind {
                Kind::Pooling if pooling.is_none() && after.is_empty() => {
                    pooling = Some(Pooling::load(path)?);
                }
                Kind::Dense => {
                    after.push(After::Dense(dense.len()));
                    dense.push(Dense::load(path, device)?);
                }
                Kind::Normalize => after.push(After::Normalize),
                // It acts in pretraining only.
                Kind::Dropout => {}
                Kind::Transformer | Kind::StaticEmbedding | Kind::Pooling => {
                    return Err(Error::file(
                        &list,
                        format!("a module {} in this place is not supported", kind.class()),
                    ));
                }
            }
        }
        let model = Self {
            _body: body,
            dense,
            tokenizer,
            settings: Settings {
                pooling: pooling.unwrap_or(plain),
                after,
                max_seq_length,
                do_lower_case,
                sentence: SentenceConfig::load(folder)?,
            },
        };
        model.check()?;
        Ok(model)
    }

    /// A model of parts: a body, its tokenizer and a pooling, with vectors of length 1 if `normalize`.
    ///
    /// # Errors
    ///
    /// If the tokenizer has ids that the body has no rows for.
    pub fn new(
        body: AutoBackbone,
        tokenizer: Tokenizer,
        pooling: impl Into<Pooling>,
        normalize: bool,
    ) -> Result<Self> {
        let max_seq_length = longest_input(None, &tokenizer, body.dims().max_position_embeddings);
        let model = Self {
            _body: Body::Transformer(body),
            dense: Vec::new(),
            tokenizer,
            settings: Settings {
                pooling: pooling.into(),
                after: normalize.then_some(After::Normalize).into_iter().collect(),
                max_seq_length,
                do_lower_case: false,
                sentence: SentenceConfig::default(),
            },
        };
        model.check()?;
        Ok(model)
    }

    fn check(&self) -> Result<()> {
        self.tokenizer.check_vocab(match &self._body {
            Body::Transformer(body) => body.dims().vocab_size,
            Body::Static(table) => table.embedding.rows(),
        })?;
        let mut width = self.width() * self.settings.pooling.modes.len();
        for (index, dense) in self.dense.iter().enumerate() {
            if dense.linear.in_features() != width {
                return Err(Error::Settings(format!(
                    "dense layer {index} takes vectors of {} numbers, but gets {width}",
                    dense.linear.in_features()
                )));
            }
            width = dense.linear.out_features();
        }
        Ok(())
    }

    /// Writes a folder that sentence-transformers loads.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, the model carries adapters (merge them first), or a weight is not finite.
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        let mut modules = Vec::new();
        let length = self.settings.max_seq_length;
        let tokenizer = with_input_names(self.tokenizer.clone());
        let tokenizer = tokenizer.with_setting("model_max_length", length);
        match &self._body {
            Body::Transformer(body) => {
                body.save_pretrained(folder, options)?;
                tokenizer.save_pretrained(folder)?;
                write_transformer_settings(folder, self.settings.do_lower_case)?;
                modules.push((Kind::Transformer, String::new()));
                let path = "1_Pooling".to_string();
                self.settings
                    .pooling
                    .save(&folder.join(&path), self.width())?;
                modules.push((Kind::Pooling, path));
            }
            Body::Static(table) => {
                let path = "0_StaticEmbedding".to_string();
                let own = folder.join(&path);
                let (dtype, size) = (options.dtype, options.max_shard_size);
                safetensors_folder::write_module(&own, table, dtype, size)?;
                tokenizer.save_pretrained(&own)?;
                modules.push((Kind::StaticEmbedding, path));
            }
        }
        for after in &self.settings.after {
            let (kind, dense) = match after {
                After::Normalize => (Kind::Normalize, None),
                After::Dense(index) => (Kind::Dense, Some(&self.dense[*index])),
            };
            let path = format!("{}_{}", modules.len(), kind.class());
            let own = folder.join(&path);
            match dense {
                Some(dense) => dense.save(&own)?,
                None => std::fs::create_dir_all(&own).map_err(ft_core::Error::write(&own))?,
            }
            modules.push((kind, path));
        }
        write_modules(folder, &modules)?;
        self.settings.sentence.save(folder)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How the states of tokens become one vector.
    pub fn pooling(&self) -> &Pooling {
        &self.settings.pooling
    }

    /// How embeddings are to be compared; [`Similarity::for_index`] prepares them for an index.
    pub fn similarity(&self) -> Similarity {
        self.settings.sentence.similarity
    }

    /// Embeddings are cut to so many dimensions, unless [`EncodeOptions::dims`](crate::EncodeOptions::dims) is set. None if they are
    /// not cut.
    pub fn truncate_dim(&self) -> Option<usize> {
        let dims = self.settings.sentence.truncate_dim;
        dims.filter(|dims| *dims < self.dims())
    }

    /// Cuts embeddings to so many dimensions, here and in a saved folder; all are kept without a number.
    ///
    /// # Errors
    ///
    /// If embeddings have fewer dimensions, or it is 0.
    pub fn with_truncate_dim(mut self, dims: Option<usize>) -> Result<Self> {
        if let Some(dims) = dims.filter(|dims| *dims == 0 || *dims > self.dims()) {
            return Err(Error::Settings(format!(
                "embeddings of {} dimensions cannot be cut to {dims}",
                self.dims()
            )));
        }
        self.settings.sentence.truncate_dim = dims;
        Ok(self)
    }

    /// The prompts by name.
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.settings.sentence.prompts
    }

    /// The name of the prompt that texts get if none is named.
    pub fn default_prompt_name(&self) -> Option<&str> {
        self.settings.sentence.default_prompt_name.as_deref()
    }

    /// Sets a prompt, which comes before texts of this kind.
    #[must_use]
    pub fn with_prompt(mut self, name: &str, prompt: &str) -> Self {
        let prompts = &mut self.settings.sentence.prompts;
        prompts.insert(name.to_string(), prompt.to_string());
        self
    }

    /// Texts are cut at so many tokens, special ones included.
    pub fn max_seq_length(&self) -> usize {
        self.settings.max_seq_length
    }

    /// Cuts texts at another length.
    ///
    /// # Errors
    ///
    /// If the model has not so many positions, or it is 0.
    pub fn with_max_seq_length(mut self, tokens: usize) -> Result<Self> {
        if tokens == 0 {
            return Err(Error::Settings("texts cannot be cut at 0 tokens".into()));
        }
        if let Body::Transformer(body) = &self._body {
            body.dims().check_length(tokens)?;
        }
        self.settings.max_seq_length = tokens;
        Ok(self)
    }

    /// Adds a layer after what there is. If vectors are normalized at the end, it comes before that.
    ///
    /// # Errors
    ///
    /// If it takes vectors of another length.
    pub fn with_dense(mut self, dense: Dense) -> Result<Self> {
        let place = match self.settings.after.last() {
            Some(After::Normalize) => self.settings.after.len() - 1,
            _ => self.settings.after.len(),
        };
        self.settings
            .after
            .insert(place, After::Dense(self.dense.len()));
        self.dense.push(dense);
        self.check()?;
        Ok(self)
    }

    /// The length of an embedding.
    pub fn dims(&self) -> usize {
        match self.dense.last() {
            Some(dense) => dense.linear.out_features(),
            None => self.width() * self.settings.pooling.modes.len(),
        }
    }

    /// The number of blocks of the body.
    pub fn num_layers(&self) -> usize {
        match &self._body {
            Body::Transformer(body) => body.dims().num_layers,
            Body::Static(_) => 0,
        }
    }

    /// Whether embeddings have the length 1.
    pub fn normalizes(&self) -> bool {
        self.settings.after.last() == Some(&After::Normalize)
    }

    fn width(&self) -> usize {
        match &self._body {
            Body::Transformer(body) => body.dims().hidden_size,
            Body::Static(table) => table.embedding.weight.lazy_shape()[1],
        }
    }

    /// The tokens of texts, each with `prompt` before it, cut at [`max_seq_length`](Self::max_seq_length).
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text, or nothing but the prompt is left of one that must not be pooled.
    pub fn tokenize<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        prompt: Option<&str>,
    ) -> Result<Vec<TextTokens>> {
        let prompt = prompt.unwrap_or("");
        let skipped = match self.settings.pooling.include_prompt || prompt.is_empty() {
            true => 0,
            false => {
                let ids = self.ids(prompt)?;
                let ends = ids.last().is_some_and(|&id| self.tokenizer.is_special(id));
                ids.len() - usize::from(ends)
            }
        };
        let all: Result<Vec<_>> = texts
            .par_iter()
            .map(|text| {
                let text = text.as_ref();
                let ids = match prompt.is_empty() {
                    true => self.ids(text)?,
                    false => self.ids(&format!("{prompt}{text}"))?,
                };
                if ids.len() <= skipped && skipped > 0 {
                    return Err(Error::Settings(format!(
                        "a prompt of {skipped} tokens leaves nothing to pool of texts that are cut at {}: use a shorter one",
                        self.settings.max_seq_length
                    )));
                }
                Ok(TextTokens {
                    ids,
                    skipped,
                    type_ids: Vec::new(),
                })
            })
            .collect();
        all
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let lower;
        let text = match self.settings.do_lower_case {
            true => {
                lower = text.to_lowercase();
                &lower
            }
            false => text,
        };
        let longest = self.settings.max_seq_length;
        let mut ids = match &self._body {
            Body::Transformer(_) => {
                let cut = Truncation::LongestFirst;
                (self.tokenizer)
                    .encode_model_input(text, None, Some(longest), cut)?
                    .ids
            }
            Body::Static(_) => {
                let mut ids = self.tokenizer.encode(text, false)?;
                ids.truncate(longest);
                ids
            }
        };
        if ids.is_empty() {
            // A text without any token still needs a place; its state is that of padding.
            ids.push(self.padding());
        }
        Ok(ids)
    }

    fn padding(&self) -> u32 {
        self.tokenizer.pad_token_id().unwrap_or(0)
    }

    /// How texts are laid out on a device: in one row without padding where the device and the body allow it, else a row a text.
    pub fn layout(&self, device: &Device) -> TextLayout {
        let tiles = match &self._body {
            Body::Transformer(body) => body.attends_by_tile(),
            Body::Static(_) => true,
        };
        text_layout(tiles, device, self.padding())
    }

    /// Texts as a batch in the [`layout`](Self::layout) of the device.
    pub fn batch(&self, texts: &[&TextTokens], device: &Device) -> TextBatch {
        self.layout(device).batch(texts)
    }

    /// The embeddings of tokenized texts, with the graph if the model trains: `[texts, dims]`.
    ///
    /// # Panics
    ///
    /// If there are no texts.
    pub fn embed(&self, texts: &[&TextTokens], device: &Device) -> Tensor<2> {
        let batch = self.batch(texts, device);
        let hidden = self.hidden(&batch, device);
        self.pool(hidden, &batch)
    }

    /// The states of all tokens, `[rows, seq, width]`.
    pub fn hidden(&self, batch: &TextBatch, device: &Device) -> Tensor<3> {
        let tokens = batch.tokens(device);
        match &self._body {
            Body::Transformer(body) => body.hidden_states(&tokens),
            Body::Static(table) => table.embedding.forward(tokens.input_ids),
        }
    }

    /// The states of all tokens after the embeddings and after each block, the last one being [`hidden`](Self::hidden).
    pub fn layers(&self, batch: &TextBatch, device: &Device) -> Vec<Tensor<3>> {
        let mut states = Vec::new();
        match &self._body {
            Body::Transformer(body) => {
                let tokens = batch.tokens(device);
                let pass = ft_core::Pass {
                    states: Some(&mut states),
                    ..tokens.pass()
                };
                body.forward(body.embed(tokens.input_ids), pass);
            }
            Body::Static(_) => states.push(self.hidden(batch, device)),
        }
        states
    }

    /// Pooling and what follows it: states of tokens, `[rows, seq, width]`, to embeddings, `[texts, dims]`.
    pub fn pool(&self, hidden: Tensor<3>, batch: &TextBatch) -> Tensor<2> {
        let [rows, seq, width] = hidden.dims();
        let hidden = hidden.reshape([rows * seq, width]);
        let modes = self.settings.pooling.modes.iter();
        let pooled: Vec<_> = modes.map(|mode| mode.pool(hidden.clone(), batch)).collect();
        let pooled = match pooled.len() {
            1 => pooled.into_iter().next().expect("there is one"),
            _ => Tensor::cat(pooled, 1),
        };
        self.settings
            .after
            .iter()
            .fold(pooled, |x, after| match after {
                After::Dense(index) => self.dense[*index].forward(x),
                After::Normalize => unit(x),
            })
    }
}

/// Each row divided by its length, which is taken as at least 1e-12: `[rows, dims]` to the same.
pub fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).clamp_min(1e-24).sqrt();
    let shape = x.dims();
    x / length.expand(shape)
}

fn transformer(
    folder: &Path,
    device: &Device,
    weights: Weights,
) -> Result<(Body, Tokenizer, usize, bool)> {
    let (setting, lower) = read_transformer_settings(folder)?;
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    let body = AutoBackbone::from_pretrained_with(folder, device, weights)?;
    let longest = longest_input(setting, &tokenizer, body.dims().max_position_embeddings);
    Ok((Body::Transformer(body), tokenizer, longest, lower))
}

fn static_table(folder: &Path, device: &Device) -> Result<(Body, Tokenizer, usize, bool)> {
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    let path = folder.join(safetensors_folder::WEIGHTS);
    let tensors = safetensors_folder::read_tensors(&path)?;
    let weight: Option<&TensorData> =
        (tensors.get("embedding.weight")).or_else(|| tensors.get("embeddings"));
    let shape = weight.map(|weight| weight.shape().as_slice().to_vec());
    let Some([rows, width]) = shape.as_deref() else {
        return Err(Error::file(
            &path,
            "it must hold embedding.weight, [tokens, dims]",
        ));
    };
    let table = StaticTable {
        embedding: Embedding::new(*rows, *width, 0.0, device),
    };
    let keys = Keys {
        old_names: &[("embedding.weight", "embeddings")],
        ..Keys::default()
    };
    let table = load_pretrained(table, folder, Weights::F32, &keys)?;
    let longest = usize::MAX >> 1;
    Ok((Body::Static(table), tokenizer, longest, false))
}
