//! P-tuning: GPT Understands, Too (Liu et al., 2021, arXiv:2103.10385), section 3: embeddings before those of the tokens,
//! computed by a network that trains.

use ft_core::Parts;
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Site};
use crate::prompt_encoder::{self, Activation, Network, PromptSizes, prompt_method};
use crate::{Common, Error, Result};

/// The network of [`PTuningConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EncoderType {
    /// Three linear layers.
    #[default]
    Mlp,
    /// A recurrent network: its trained adapters load, but new ones are an error.
    Lstm,
}

/// Settings of p-tuning (Liu et al., 2021, arXiv:2103.10385), PEFT's `PromptEncoderConfig`.
///
/// The file of the adapter holds the virtual tokens and not the network, so that a loaded adapter trains without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PTuningConfig {
    /// How many virtual tokens.
    pub num_virtual_tokens: usize,
    /// The network.
    pub encoder_reparameterization_type: EncoderType,
    /// The width of the network; that of the embeddings if not given.
    pub encoder_hidden_size: Option<usize>,
    /// How many layers the recurrent network has.
    pub encoder_num_layers: usize,
    /// Dropout in the recurrent network.
    pub encoder_dropout: f64,
    /// Sizes of the model.
    #[serde(flatten)]
    pub sizes: PromptSizes,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for PTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            encoder_reparameterization_type: EncoderType::Mlp,
            encoder_hidden_size: None,
            encoder_num_layers: 2,
            encoder_dropout: 0.0,
            sizes: PromptSizes::default(),
            common: Common::default(),
        }
    }
}

json_settings!(PTuningConfig);

const NETWORK: Network = Network {
    layers: &["mlp_head.0", "mlp_head.2", "mlp_head.4"],
    activation: Activation::Relu,
};

impl PTuningConfig {
    /// What a new adapter cannot have.
    fn refused(&self) -> Option<String> {
        let default = Self::default();
        if self.encoder_reparameterization_type == EncoderType::Lstm {
            Some("encoder_reparameterization_type LSTM is not supported for new adapters: use MLP".into())
        } else if self.encoder_num_layers != default.encoder_num_layers {
            Some("encoder_num_layers is for LSTM: the MLP always has three layers".into())
        } else if self.encoder_dropout != default.encoder_dropout {
            Some("encoder_dropout is for LSTM: the MLP has no dropout".into())
        } else {
            None
        }
    }
}

impl Method for PTuningConfig {
    prompt_method!("P_TUNING");

    fn mistakes(&self) -> Vec<String> {
        prompt_encoder::mistakes(self.num_virtual_tokens, self.encoder_hidden_size)
    }

    fn fit(&mut self, model: &dyn Parts) -> Result<()> {
        let (width, blocks) = prompt_encoder::embedding_and_blocks(model)?;
        self.encoder_hidden_size.get_or_insert(width);
        self.sizes.fit(width, blocks)
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let width = site.features().outputs;
        if site.loaded {
            let embeddings = draw.zeros([self.num_virtual_tokens, width]);
            return Ok(prompt_encoder::plain(embeddings, None));
        }
        if let Some(mistake) = self.refused() {
            return Err(Error::Settings(mistake));
        }
        let inner = self.encoder_hidden_size.unwrap_or(width);
        let widths = [width, inner, inner, width];
        Ok(NETWORK.begin(self.num_virtual_tokens, &widths, None, false, draw))
    }
}
