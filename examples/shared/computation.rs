//! Where a program computes, and how precisely.

use anyhow::Result;
use clap::Args;
use ft::burn::tensor::Device;
use ft::kernels::{Precision, set_precision};

#[derive(Args, Clone)]
pub(crate) struct Computation {
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// How matrix products on the CPU treat their factors: f32 takes them as they are, bf16 rounds them, which is up to 1.7 times as
    /// fast on processors with AVX-512 BF16. Sums, gradients and weights that train are f32 in both cases.
    #[arg(long, default_value_t)]
    matmul_precision: Precision,
}

impl Computation {
    /// The device; products have the precision from now on.
    pub(crate) fn device(&self) -> Result<Device> {
        let rounded = set_precision(self.matmul_precision) && self.device == "cpu";
        if self.matmul_precision != Precision::F32 && !rounded {
            eprintln!(
                "--matmul-precision is for processors with AVX-512 BF16: products are in f32"
            );
        }
        Ok(ft::device(&self.device)?)
    }
}
