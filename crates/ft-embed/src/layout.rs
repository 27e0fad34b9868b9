//! How texts are laid out for a model.

use burn::tensor::Device;
use ft_data::TextLayout;

/// How texts are laid out for a model on a device: in one row if attention works in tiles there, else padded with this id.
/// `attends_by_tile` is that of the model.
pub fn text_layout(attends_by_tile: bool, device: &Device, padding: u32) -> TextLayout {
    match attends_by_tile && ft_kernels::is_cpu(device) {
        true => TextLayout::Packed,
        false => TextLayout::Padded(padding),
    }
}
