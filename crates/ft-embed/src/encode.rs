//! Texts to embeddings: tokenized on all cores, sorted by length, computed in batches of about the same number of tokens.

use burn::module::Module;
use burn::tensor::Device;
use ft_data::{TextLayout, by_length};

use crate::{EmbeddingModel, Embeddings, Error, Result, TextTokens};

/// Which prompt comes before texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// The model's default, which most models do not have.
    #[default]
    Default,
    /// None.
    None,
    /// One of the model's, by its name.
    Named(&'a str),
    /// This text.
    Text(&'a str),
}

/// How texts are encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodeOptions<'a> {
    /// What comes before each text.
    pub prompt: Prompt<'a>,
    /// Only the first dimensions are kept. If the model normalizes, what is left is normalized again. Without a number it is the
    /// model's [`truncate_dim`](EmbeddingModel::truncate_dim), which leaves what is left as it is, as sentence-transformers does.
    pub dims: Option<usize>,
    /// Normalizes embeddings also where the model does not.
    pub normalize: bool,
    /// A batch has about so many tokens, padding included. More need more memory and are hardly faster.
    pub batch_tokens: usize,
}

impl Default for EncodeOptions<'_> {
    fn default() -> Self {
        Self {
            prompt: Prompt::Default,
            dims: None,
            normalize: false,
            batch_tokens: 2048,
        }
    }
}

impl EmbeddingModel {
    /// The embeddings of texts, with the model's default prompt if it has one.
    ///
    /// # Errors
    ///
    /// As [`encode_with`](Self::encode_with).
    pub fn encode<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Embeddings> {
        self.encode_with(texts, &EncodeOptions::default(), &mut |_, _| {})
    }

    /// The embeddings of queries: with the prompt `query`, if the model has it, else the default one.
    ///
    /// # Errors
    ///
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_queries<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Embeddings> {
        let prompt = self.query_prompt();
        let options = EncodeOptions {
            prompt,
            ..EncodeOptions::default()
        };
        self.encode_with(texts, &options, &mut |_, _| {})
    }

    /// The embeddings of documents: with the prompt `document`, `passage` or `corpus`, if the model has one of them, else
    /// the default one.
    ///
    /// # Errors
    ///
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_documents<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Embeddings> {
        let prompt = self.document_prompt();
        let options = EncodeOptions {
            prompt,
            ..EncodeOptions::default()
        };
        self.encode_with(texts, &options, &mut |_, _| {})
    }

    /// The prompt of queries.
    pub fn query_prompt(&self) -> Prompt<'static> {
        self.first_prompt(&["query"])
    }

    /// The prompt of documents.
    pub fn document_prompt(&self) -> Prompt<'static> {
        self.first_prompt(&["document", "passage", "corpus"])
    }

    fn first_prompt(&self, names: &[&'static str]) -> Prompt<'static> {
        let mut names = names.iter();
        let known = names.find(|name| self.prompts().contains_key(**name));
        known.map_or(Prompt::Default, |name| Prompt::Named(name))
    }

    /// The embeddings of texts in their order. `progress` hears how many of them are done, of how many.
    ///
    /// # Errors
    ///
    /// If the prompt or the number of dimensions does not exist, the tokenizer refuses a text, or an embedding is not
    /// finite.
    pub fn encode_with<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        options: &EncodeOptions<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Embeddings> {
        let dims = options.dims.or(self.truncate_dim()).unwrap_or(self.dims());
        if dims == 0 || dims > self.dims() {
            return Err(Error::Settings(format!(
                "the model's embeddings have {} dimensions, not {dims}",
                self.dims()
            )));
        }
        let prompt = self.prompt_text(options.prompt)?;
        let texts = self.tokenize(texts, prompt)?;
        let model = self.without_graph();
        let device = model.devices().first().cloned().unwrap_or_default();
        let mut values = vec![0.0; texts.len() * dims];
        let mut done = 0;
        let packed = model.layout(&device) == TextLayout::Packed;
        for batch in by_length(&texts, options.batch_tokens, packed) {
            let rows: Vec<&TextTokens> = batch.iter().map(|&text| &texts[text]).collect();
            let embeddings = model.embed(&rows, &device);
            let embeddings = embeddings.into_data().convert::<f32>();
            let embeddings = (embeddings.try_to_vec::<f32>())
                .map_err(|error| Error::Embeddings(format!("{error:?}")))?;
            for (row, &text) in embeddings.chunks_exact(self.dims()).zip(&batch) {
                values[text * dims..][..dims].copy_from_slice(&row[..dims]);
            }
            done += batch.len();
            progress(done, texts.len());
        }
        let embeddings = Embeddings::new(values, dims)?;
        embeddings.check_finite()?;
        let cut = options.dims.is_some() && dims < self.dims() && self.normalizes();
        Ok(match options.normalize || cut {
            true => embeddings.normalized(),
            false => embeddings,
        })
    }

    /// The text of a prompt.
    ///
    /// # Errors
    ///
    /// If the model has no prompt of this name.
    pub fn prompt_text<'a>(&'a self, prompt: Prompt<'a>) -> Result<Option<&'a str>> {
        let named = |name: &str| {
            let text = self.prompts().get(name).map(String::as_str);
            text.map(Some).ok_or_else(|| Error::UnknownName {
                kind: "prompt",
                name: name.to_string(),
                known: match self.prompts().is_empty() {
                    true => "none, since this model has no prompts".to_string(),
                    false => self
                        .prompts()
                        .keys()
                        .cloned()
                        .collect::<Vec<_>>()
                        .join(", "),
                },
            })
        };
        match prompt {
            Prompt::None => Ok(None),
            Prompt::Text(text) => Ok(Some(text)),
            Prompt::Named(name) => named(name),
            Prompt::Default => self.default_prompt_name().map_or(Ok(None), named),
        }
    }

    /// The same weights outside of any graph.
    pub(crate) fn without_graph(&self) -> Self {
        let autodiff = self.devices().first().is_some_and(Device::is_autodiff);
        match autodiff {
            true => self.valid(),
            false => self.clone(),
        }
    }
}
