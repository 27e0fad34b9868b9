//! BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models (Ben Zaken et al., 2021,
//! arXiv:2106.10199): every bias trains, and nothing else.
//!
//! PEFT has no such method. The form of the files is PEFT's: `base_model.model.<layer>.bias`.

use ft_core::Part;
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::copies::{Copies, has_bias};
use crate::method::{Draw, Method, NewAdapter, Site, method};
use crate::{Common, Result, TargetModules};

/// Settings of BitFit (Ben Zaken et al., 2021, arXiv:2106.10199).
///
/// Without `target_modules` the biases of all layers train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BitFitConfig {
    /// Whether linear layers without a bias get one of zeros, the output layer aside: Llama has no biases. Merging leaves
    /// them in the model.
    pub add_missing: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for BitFitConfig {
    fn default() -> Self {
        Self {
            add_missing: true,
            common: Common {
                target_modules: Some(TargetModules::Pattern(".*".into())),
                ..Common::default()
            },
        }
    }
}

json_settings!(BitFitConfig);

const BIAS: &str = "bias";

impl Method for BitFitConfig {
    method!("BITFIT");

    fn keys(&self) -> &'static [&'static str] {
        &["target_modules", "exclude_modules", "modules_to_save"]
    }

    fn takes(&self, part: Part<'_>) -> bool {
        has_bias(part) || self.add_missing && matches!(part, Part::Linear(_))
    }

    fn takes_output(&self, part: Part<'_>) -> bool {
        has_bias(part)
    }

    fn names_of_base(&self) -> &'static [&'static str] {
        &[BIAS]
    }

    fn on(&self, site: &Site<'_>, _: &mut Draw<'_>) -> Result<NewAdapter> {
        let copies = Copies {
            weight: None,
            bias: Some(BIAS),
        };
        Ok(NewAdapter::new(copies, copies.tensors(site.part)))
    }
}
