//! Another number of tokens in the embedding and in the output layer.

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Tensor};

use crate::layers::WeightParam;
use crate::layers::linear::{Layout, Linear};
use crate::models::auto::AutoCausalLm;
use crate::{CausalLm, Error, PartMut, Parts, Result};

impl AutoCausalLm {
    /// Gives the embedding and the output layer `vocab_size` rows, for tokens that the tokenizer has gained.
    ///
    /// New rows are the mean of the old ones, and so are new numbers of a bias of the output layer: no new token begins
    /// as an unlikely or a likely one (Hewitt, 2021, "Initializing New Word Embeddings for Pretrained Language Models").
    /// transformers adds noise of the old rows' covariance, which is left out here: the result does not depend on a
    /// seed, and new tokens part as soon as they train. A tied output layer stays tied.
    /// [`config`](Self::config) and [`dims`](CausalLm::dims) then give the new size, so that saving and loading work.
    ///
    /// Resize before an optimizer is made. An adapter does not hold the new rows; `ft_peft::save_adapter` writes them if
    /// `modules_to_save` names the embedding and the output layer.
    ///
    /// # Errors
    ///
    /// If the model has more rows than that, or the embedding or the output layer has adapters or is held in blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use ft_core::{AutoCausalLm, CausalLm, ModelConfig};
    ///
    /// let json = serde_json::json!({"model_type": "llama", "vocab_size": 10, "hidden_size": 4,
    ///     "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1});
    /// let mut model = AutoCausalLm::from_config(&ModelConfig::from_json(json)?, &Device::default())?;
    /// model.resize_token_embeddings(12)?;
    /// assert_eq!(model.dims().vocab_size, 12);
    /// assert!(model.resize_token_embeddings(10).is_err());
    /// # Ok::<(), ft_core::Error>(())
    /// ```
    pub fn resize_token_embeddings(&mut self, vocab_size: usize) -> Result<()> {
        let rows = self.dims().vocab_size;
        if vocab_size < rows {
            return Err(Error::Settings(format!(
                "the model has {rows} rows of tokens and {vocab_size} would lose some: call \
                 truncate_token_embeddings if that is meant"
            )));
        }
        self.resize(vocab_size)
    }

    /// Removes the rows from `vocab_size` on from the embedding and the output layer: those tokens are lost.
    ///
    /// # Errors
    ///
    /// If the model does not have that many rows, none would be left, or the embedding or the output layer has adapters or is
    /// held in blocks.
    pub fn truncate_token_embeddings(&mut self, vocab_size: usize) -> Result<()> {
        let rows = self.dims().vocab_size;
        if !(1..=rows).contains(&vocab_size) {
            return Err(Error::Settings(format!(
                "the model has {rows} rows of tokens, which cannot be cut to {vocab_size}"
            )));
        }
        self.resize(vocab_size)
    }

    fn resize(&mut self, rows: usize) -> Result<()> {
        let embedding = self.embedding();
        let output = self.output_layer();
        let (mut adapted, mut packed) = (false, false);
        self.for_each_part(&mut |path, part| {
            let counts_tokens = path == output || path == embedding;
            adapted |= counts_tokens && !part.adapters().is_empty();
            packed |= counts_tokens
                && part
                    .weight()
                    .is_some_and(|weight| weight.packed().is_some());
        });
        if packed {
            return Err(Error::Settings(format!(
                "{embedding} or {output} is held in blocks of few bits, to which no rows are added: call dequantize first"
            )));
        }
        if adapted {
            return Err(Error::Settings(format!(
                "{embedding} or {output} has adapters, which are made for the present number of tokens: merge or remove them first"
            )));
        }
        self.for_each_part_mut(&mut |path, part| match part {
            PartMut::Embedding(table) if path == embedding => {
                replace_matrix(&mut table.weight, |weight| resized(weight, 0, rows));
            }
            PartMut::Linear(linear) if path == output => resize_outputs(linear, rows),
            _ => {}
        });
        Ok(())
    }
}

fn resize_outputs(linear: &mut Linear, rows: usize) {
    let outputs = match linear.layout() {
        Layout::OutIn => 0,
        Layout::InOut => 1,
    };
    replace_matrix(&mut linear.weight, |weight| resized(weight, outputs, rows));
    if let Some(bias) = &mut linear.bias {
        replace(bias, |bias| resized(bias, 0, rows));
    }
}

fn replace_matrix(weight: &mut WeightParam, change: impl FnOnce(Tensor<2>) -> Tensor<2>) {
    let value = change(weight.val().detach());
    weight.replace(value, ParamId::new());
}

/// Another value for a parameter, which trains if it trained before.
fn replace<const D: usize>(
    param: &mut Param<Tensor<D>>,
    change: impl FnOnce(Tensor<D>) -> Tensor<D>,
) {
    let value = change(param.val().detach());
    // Another identity, since what an optimizer knows of the old parameter has another shape.
    *param = param.clone().transform_for_load(value, ParamId::new());
}

/// The first `size` rows along `dim`; those that are not there are the mean of those that are.
fn resized<const D: usize>(values: Tensor<D>, dim: usize, size: usize) -> Tensor<D> {
    let has = values.dims()[dim];
    if size <= has {
        return values.narrow(dim, 0, size);
    }
    let dtype = values.dtype();
    let mean = values.clone().cast(DType::F32).mean_dim(dim).cast(dtype);
    Tensor::cat(vec![values, mean.repeat_dim(dim, size - has)], dim)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn new_rows_are_the_mean_of_the_old() {
        let table = TensorData::from([[1.0f32, 2.0], [3.0, 6.0]]);
        let table = Tensor::<2>::from_data(table, &Device::default());
        let expected = TensorData::from([[1.0f32, 2.0], [3.0, 6.0], [2.0, 4.0], [2.0, 4.0]]);
        assert_eq!(resized(table.clone(), 0, 4).into_data(), expected);
        let expected = TensorData::from([[1.0f32, 2.0, 1.5], [3.0, 6.0, 4.5]]);
        assert_eq!(resized(table.clone(), 1, 3).into_data(), expected);
        let expected = TensorData::from([[1.0f32, 2.0]]);
        assert_eq!(resized(table, 0, 1).into_data(), expected);
    }
}
