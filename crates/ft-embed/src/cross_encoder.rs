//! Cross-encoders: a score of a pair of texts that are read together (Nogueira and Cho, 2019, arXiv:1901.04085).

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use ft_core::safetensors_folder::Weights;
use ft_core::{EncoderSequenceClassifier, Parts, SaveOptions, Tokenizer, Truncation};
use ft_data::{TextLayout, by_length, longest_input, reads_token_types, with_input_names};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::folder::{read_object, read_transformer_settings};
use crate::{Error, Result, TextTokens, text_layout};

/// What comes after the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairActivation {
    /// Nothing.
    Identity,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
}

/// A model that scores pairs of texts, in a folder of transformers' `*ForSequenceClassification` or of sentence-transformers.
///
/// ```no_run
/// use std::path::Path;
///
/// use burn::tensor::Device;
/// use ft_embed::CrossEncoder;
///
/// let model = CrossEncoder::from_pretrained(Path::new("ms-marco-MiniLM-L6-v2"), &Device::default())?;
/// let documents = ["It is 330 metres high.", "Cats sleep a lot."];
/// for (document, score) in model.rank("How tall is the tower?", &documents)? {
///     println!("{score:.3} {}", documents[document]);
/// }
/// # Ok::<(), ft_embed::Error>(())
/// ```
#[derive(Module, Parts, Debug)]
#[parts(output = "")]
pub struct CrossEncoder {
    _model: EncoderSequenceClassifier,
    #[module(skip)]
    tokenizer: Tokenizer,
    #[module(skip)]
    activation: PairActivation,
    max_length: usize,
}

impl CrossEncoder {
    /// Loads a folder. Without a setting the activation is the sigmoid for one label and none for several, as in
    /// sentence-transformers.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, the weights do not fit, or the activation is not supported.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        Self::from_pretrained_with(folder, device, Weights::F32)
    }

    /// [`from_pretrained`](Self::from_pretrained) with the weights held as `weights` says.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let model = EncoderSequenceClassifier::from_pretrained_with(folder, device, weights)?;
        let tokenizer = Tokenizer::from_pretrained(folder)?;
        let mut built = Self::new(model, tokenizer)?;
        if let Some(activation) = activation_of(folder)? {
            built.activation = activation;
        }
        let (setting, _) = read_transformer_settings(folder)?;
        let positions = built._model.dims().max_position_embeddings;
        built.max_length = longest_input(setting, &built.tokenizer, positions);
        Ok(built)
    }

    /// A cross-encoder of its parts.
    ///
    /// # Errors
    ///
    /// If the tokenizer has ids that the model has no rows for.
    pub fn new(model: EncoderSequenceClassifier, tokenizer: Tokenizer) -> Result<Self> {
        tokenizer.check_vocab(model.dims().vocab_size)?;
        let max_length = longest_input(None, &tokenizer, model.dims().max_position_embeddings);
        let activation = match model.config().num_labels() {
            1 => PairActivation::Sigmoid,
            _ => PairActivation::Identity,
        };
        Ok(Self {
            _model: model,
            tokenizer: with_input_names(tokenizer),
            activation,
            max_length,
        })
    }

    /// Writes a folder that sentence-transformers loads as a `CrossEncoder`, and transformers as a classifier.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, the model carries adapters, or a weight is not finite.
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        self._model.save_pretrained(folder, options)?;
        let tokenizer = self
            .tokenizer
            .clone()
            .with_setting("model_max_length", self.max_length);
        tokenizer.save_pretrained(folder)?;
        let path = folder.join("config.json");
        let mut config = read_object(&path)?.unwrap_or_default();
        let name = match self.activation {
            PairActivation::Identity => "torch.nn.modules.linear.Identity",
            PairActivation::Sigmoid => "torch.nn.modules.activation.Sigmoid",
        };
        config.insert(
            "sentence_transformers".into(),
            json!({"activation_fn": name}),
        );
        Ok(ft_core::safetensors_folder::write_json(&path, &config)?)
    }

    /// Cuts pairs at another length.
    ///
    /// # Errors
    ///
    /// If the model has not so many positions, or it is 0.
    pub fn with_max_length(self, tokens: usize) -> Result<Self> {
        if tokens == 0 {
            return Err(Error::Settings("pairs cannot be cut at 0 tokens".into()));
        }
        self._model.dims().check_length(tokens)?;
        Ok(Self {
            max_length: tokens,
            ..self
        })
    }

    /// What comes after the logits.
    pub fn activation(&self) -> PairActivation {
        self.activation
    }

    /// Puts another activation after the logits, here and in a saved folder: none for a model that was trained on the scores of a
    /// teacher.
    #[must_use]
    pub fn with_activation(self, activation: PairActivation) -> Self {
        Self { activation, ..self }
    }

    /// The model.
    pub fn model(&self) -> &EncoderSequenceClassifier {
        &self._model
    }

    /// How many scores a pair gets.
    pub fn num_labels(&self) -> usize {
        self._model.config().num_labels()
    }

    /// Pairs as token ids; the longer text of a pair that is too long is cut.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text.
    pub fn tokenize(&self, pairs: &[(&str, &str)]) -> Result<Vec<TextTokens>> {
        let told = reads_token_types(&self.tokenizer);
        let encode = |(first, second): &(&str, &str)| {
            let cut = Truncation::LongestFirst;
            let length = Some(self.max_length);
            let encoded = (self.tokenizer).encode_model_input(first, Some(second), length, cut)?;
            Ok(TextTokens {
                ids: encoded.ids,
                skipped: 0,
                type_ids: if told { encoded.type_ids } else { Vec::new() },
            })
        };
        pairs.par_iter().map(encode).collect()
    }

    /// The logits of tokenized pairs, with the graph if the model trains: `[pairs, labels]`.
    ///
    /// # Panics
    ///
    /// If there are no pairs.
    pub fn logits(&self, pairs: &[&TextTokens], device: &Device) -> Tensor<2> {
        let batch = self.layout(device).batch(pairs);
        self._model.scores(&batch.tokens(device), batch.places())
    }

    /// How pairs are laid out on a device: in one row without padding where the device and the model allow it.
    fn layout(&self, device: &Device) -> TextLayout {
        let padding = self.tokenizer.pad_token_id().unwrap_or(0);
        text_layout(self._model.attends_by_tile(), device, padding)
    }

    /// The scores of pairs after the activation, a row of labels a pair.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text, or a score is not finite.
    pub fn predict(&self, pairs: &[(&str, &str)]) -> Result<Vec<Vec<f32>>> {
        let tokens = self.tokenize(pairs)?;
        let device = self.devices().first().cloned().unwrap_or_default();
        let model = match device.is_autodiff() {
            true => self.valid(),
            false => self.clone(),
        };
        let device = model.devices().first().cloned().unwrap_or_default();
        let mut scores = vec![Vec::new(); pairs.len()];
        let packed = model.layout(&device) == TextLayout::Packed;
        for batch in by_length(&tokens, 2048, packed) {
            let rows: Vec<&TextTokens> = batch.iter().map(|&pair| &tokens[pair]).collect();
            let logits = model.logits(&rows, &device);
            let found = match self.activation {
                PairActivation::Identity => logits,
                PairActivation::Sigmoid => activation::sigmoid(logits),
            };
            let found = found.into_data().convert::<f32>();
            let found = (found.try_to_vec::<f32>())
                .map_err(|error| Error::Embeddings(format!("{error:?}")))?;
            for (row, &pair) in found.chunks_exact(self.num_labels()).zip(&batch) {
                if let Some(bad) = row.iter().find(|x| !x.is_finite()) {
                    return Err(Error::Embeddings(format!(
                        "the score of pair {pair} is {bad}"
                    )));
                }
                scores[pair] = row.to_vec();
            }
        }
        Ok(scores)
    }

    /// The numbers of documents with their scores for a query, the best first; among equal scores the lower number.
    ///
    /// # Errors
    ///
    /// As [`predict`](Self::predict), and if the model gives several scores to a pair.
    pub fn rank<T: AsRef<str>>(&self, query: &str, documents: &[T]) -> Result<Vec<(usize, f32)>> {
        if self.num_labels() != 1 {
            return Err(Error::Settings(format!(
                "ranking needs one score a pair, but this model gives {}",
                self.num_labels()
            )));
        }
        let pairs: Vec<(&str, &str)> = documents
            .iter()
            .map(|document| (query, document.as_ref()))
            .collect();
        let scores = self.predict(&pairs)?;
        let mut ranked: Vec<(usize, f32)> = scores.iter().map(|row| row[0]).enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Ok(ranked)
    }
}

/// The activation that a folder names: in the file of version 6, or in `config.json`.
fn activation_of(folder: &Path) -> Result<Option<PairActivation>> {
    let path = folder.join("config_sentence_transformers.json");
    let newer = read_object(&path)?.unwrap_or_default();
    let config = folder.join("config.json");
    let older = read_object(&config)?.unwrap_or_default();
    let name = (newer.get("activation_fn"))
        .or_else(|| {
            older
                .get("sentence_transformers")
                .and_then(|own| own.get("activation_fn"))
        })
        .or_else(|| older.get("sbert_ce_default_activation_function"))
        .and_then(Value::as_str);
    match name {
        None => Ok(None),
        Some(name) if name.ends_with(".Sigmoid") => Ok(Some(PairActivation::Sigmoid)),
        Some(name) if name.ends_with(".Identity") => Ok(Some(PairActivation::Identity)),
        Some(name) => Err(Error::file(
            &config,
            format!(
                "the activation {name:?} is not supported: Sigmoid and Identity of torch.nn are"
            ),
        )),
    }
}
