//! Which device the tests run on.

use burn::tensor::{DType, Device};

/// The CPU with gradients, where everything that is expected is computed.
pub(crate) fn cpu() -> Device {
    Device::flex().autodiff()
}

/// The device under test with gradients: `FT_TEST_DEVICE`, or the CPU.
pub(crate) fn device() -> Device {
    match std::env::var("FT_TEST_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => cpu(),
        #[cfg(feature = "wgpu")]
        Ok("wgpu") => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff(),
        Ok(other) => {
            panic!("FT_TEST_DEVICE={other}: it is cpu or, with the feature wgpu, wgpu")
        }
    }
}

/// Whether the CPU is under test; says why a test is skipped if not.
pub(crate) fn on_the_cpu(why: &str) -> bool {
    let yes = device() == cpu();
    if !yes {
        eprintln!("SKIPPED on this device: {why}");
    }
    yes
}

/// Whether the device computes with numbers of this type; says that a test is skipped if not.
pub(crate) fn has(dtype: DType) -> bool {
    let yes = device().supports_dtype(dtype);
    if !yes {
        eprintln!("SKIPPED: the device has no {dtype:?}");
    }
    yes
}
