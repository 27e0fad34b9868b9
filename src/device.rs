//! Devices by name.

use burn::tensor::Device;

/// The device does not exist in this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError(String);

impl std::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DeviceError {}

/// The device called `cpu`, `cuda`, `cuda:1`, `wgpu`, `vulkan` or `metal`.
///
/// Each needs the cargo feature of its name; `cpu` is on by default.
///
/// # Errors
///
/// If the name is unknown, or the feature was not compiled in.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            let index: usize = index
                .parse()
                .map_err(|_| DeviceError(format!("{name:?}: {index:?} is not a device number")))?;
            (kind, index)
        }
        None => (name, 0),
    };
    let _ = index; // used by GPU features only
    #[allow(unreachable_patterns)] // of the second arm for a device whose feature is on
    match kind {
        #[cfg(feature = "cpu")]
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::webgpu(gpu(index))),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(gpu(index))),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(gpu(index))),
        "cpu" | "cuda" | "wgpu" | "vulkan" | "metal" => Err(DeviceError(format!(
            "this program was built without the device {kind}: build it with --features {kind}"
        ))),
        _ => Err(DeviceError(format!(
            "there is no device {name:?}: it must be cpu, cuda, wgpu, vulkan or metal; a GPU may have a \
             number, as in cuda:1"
        ))),
    }
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn gpu(index: usize) -> burn::tensor::DeviceKind {
    if index == 0 {
        burn::tensor::DeviceKind::DefaultDevice
    } else {
        burn::tensor::DeviceKind::DiscreteGpu(index)
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::device;

    #[test]
    fn the_cpu_exists_and_an_unknown_name_is_an_error() {
        assert!(device("cpu").is_ok());
        let message = device("tpu").map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("cpu, cuda, wgpu"), "{message}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn the_error_for_a_disabled_device_names_its_feature() {
        let message = device("cuda:1").map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("--features cuda"), "{message}");
    }
}
