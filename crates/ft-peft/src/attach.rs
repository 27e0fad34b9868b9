//! A new adapter on a model: the base freezes, the factors train.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use ft_core::{Lora, Parts};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::freeze::freeze_all;
use crate::switch::check_new;
use crate::{InitLoraWeights, LoraConfig, Result, targets};

/// Attaches a new adapter called `name`, active and trainable, and freezes everything else.
///
/// PEFT calls the first adapter `default`. A model with an active adapter is an error: an adapter trained
/// on top of another one works only together with it. Call [`merge_and_unload`](crate::merge_and_unload)
/// first, or deactivate the other adapter; [`set_active`](crate::set_active) can activate both afterwards.
/// The factors are drawn from `seed` on the host, so they are the same on every device.
///
/// # Errors
///
/// If the settings are wrong, one of the names in them matches no layer, they ask for `modules_to_save`, `name` is
/// taken, or another adapter is active.
pub fn attach<M: Module + Parts>(
    model: M,
    config: &LoraConfig,
    name: &str,
    seed: u64,
) -> Result<M> {
    config.validate()?;
    check_new(&model, name)?;
    let chosen = targets::select_strictly(&targets::paths(&model), model.output_layer(), config)?;
    let mut model = freeze_all(model);
    let mut rng = StdRng::seed_from_u64(seed);
    model.for_each_linear_mut(&mut |path, linear| {
        if !chosen.iter().any(|chosen| chosen == path) {
            return;
        }
        let r = config.rank_of(path);
        let (inputs, outputs) = (linear.in_features(), linear.out_features());
        let device = linear.weight.lazy_device();
        let a: Vec<f32> = match config.init_lora_weights {
            InitLoraWeights::Kaiming => {
                let bound = 1.0 / (inputs as f32).sqrt();
                (0..r * inputs)
                    .map(|_| rng.random_range(-bound..bound))
                    .collect()
            }
            InitLoraWeights::Gaussian => {
                let std = 1.0 / r as f32;
                (0..r * inputs).map(|_| normal(&mut rng) * std).collect()
            }
        };
        let a = Tensor::from_data(TensorData::new(a, [r, inputs]), &device);
        let b = Tensor::zeros([outputs, r], &device);
        let scaling = config.scaling_of(path);
        linear
            .adapters
            .push(Lora::new(name, a, b, scaling, config.lora_dropout));
    });
    Ok(model)
}

/// A standard normal number, by the method of Box and Muller.
fn normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut rng = StdRng::seed_from_u64(1);
        let numbers: Vec<f32> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = numbers.iter().sum::<f32>() / 20_000.0;
        let square = numbers.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        // standard deviations: 1/√20000 = 0.007, √(2/20000) = 0.01
        assert!(
            mean.abs() < 0.03 && (square - 1.0).abs() < 0.04,
            "{mean} {square}"
        );
    }
}
