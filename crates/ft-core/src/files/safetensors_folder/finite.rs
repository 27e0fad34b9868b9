//! Whether the numbers of a tensor are finite, and stay so in the type of a file.

use burn::tensor::{FloatDType, TensorData};

use crate::{Error, Result};

/// Checks that every number of a tensor is finite and stays so in `dtype`.
///
/// # Errors
///
/// [`Error::NotFinite`] with the first number that is not.
///
/// # Examples
///
/// ```
/// use burn::tensor::{FloatDType, TensorData};
/// use ft_core::safetensors_folder::check_finite;
///
/// let data = TensorData::from([0.5f32, 70_000.0]);
/// assert!(check_finite("weight", &data, FloatDType::BF16).is_ok());
/// let error = check_finite("weight", &data, FloatDType::F16).unwrap_err();
/// assert!(error.to_string().starts_with("weight holds 70000"));
/// ```
pub fn check_finite(tensor: &str, data: &TensorData, dtype: FloatDType) -> Result<()> {
    let limit = limit(dtype);
    let fits = |x: &f32| x.abs() < limit;
    let found = match data.as_slice::<f32>() {
        Ok(numbers) => numbers.iter().copied().find(|x| !fits(x)),
        Err(_) => data.iter::<f32>().find(|x| !fits(x)),
    };
    let Some(value) = found else { return Ok(()) };
    let reason = if !value.is_finite() {
        "which is not finite: the weights are damaged, for instance by a training that diverged; \
         go back to an earlier checkpoint"
    } else if dtype == FloatDType::F16 {
        "which float16 cannot hold (its largest number is 65504): save in bfloat16 or float32"
    } else {
        "which bfloat16 cannot hold: save in float32"
    };
    Err(Error::NotFinite {
        tensor: tensor.to_string(),
        value,
        reason,
    })
}

/// The smallest number that becomes infinite in `dtype`: it lies halfway between the largest one and the power of two
/// after it.
fn limit(dtype: FloatDType) -> f32 {
    match dtype {
        FloatDType::F16 => 65_520.0,
        FloatDType::BF16 => f32::from_bits(0x7f7f_8000),
        _ => f32::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn limits_are_where_rounding_goes_to_infinity() {
        let infinite = |dtype, x| match dtype {
            FloatDType::F16 => f16::from_f32(x).is_infinite(),
            FloatDType::BF16 => bf16::from_f32(x).is_infinite(),
            _ => x.is_infinite(),
        };
        for dtype in [FloatDType::F16, FloatDType::BF16, FloatDType::F32] {
            let limit = limit(dtype);
            let infinite = |x| infinite(dtype, x);
            assert!(infinite(limit) && !infinite(limit.next_down()), "{dtype:?}");
        }
    }

    #[test]
    fn the_error_names_tensor_and_value() {
        let message = |x: f32, dtype| {
            check_finite("a.weight", &TensorData::from([1.0, -x]), dtype)
                .expect_err("does not fit")
                .to_string()
        };
        assert!(
            message(65_520.0, FloatDType::F16).starts_with("a.weight holds -65520, which float16")
        );
        assert!(message(f32::MAX, FloatDType::BF16).contains("float32"));
        for x in [f32::NAN, f32::INFINITY] {
            for dtype in [FloatDType::F16, FloatDType::BF16, FloatDType::F32] {
                assert!(message(x, dtype).contains("not finite"));
            }
        }
    }
}
