//! The sizes of a configuration, compared with the tensors of its files before a model is made: a damaged file could have any,
//! and some of them are lengths of lists.

use std::path::Path;

use crate::files::weight_source::{WeightSource, open_weights};
use crate::{Dims, Error, Result};

/// Dimensions that cost nothing, for which the error that lists the keys is clearer.
const SMALL: usize = 1 << 16;

/// Refuses more layers than there are tensors, and widths above all dimensions of tensors. `widths` are names and sizes besides
/// those of `dims`.
pub(crate) fn check_sizes(
    dims: Dims,
    widths: &[(&str, usize)],
    files: &dyn WeightSource,
) -> Result<()> {
    let (mut tensors, mut largest) = (0, SMALL);
    for name in files.names() {
        tensors += 1;
        largest = files.shape(name)?.into_iter().fold(largest, usize::max);
    }
    let refused = |what: &str, size: usize, has: String| {
        let reason = format!("config.json has {what} {size}, and the weights have {has}");
        Err(Error::invalid(files.path(), reason))
    };
    if dims.num_layers > tensors {
        let has = format!("{tensors} tensors");
        return refused("a number of layers of", dims.num_layers, has);
    }
    let own = [("a hidden size of", dims.hidden_size)];
    for (what, size) in own.iter().chain(widths) {
        if *size > largest {
            return refused(what, *size, format!("no dimension above {largest}"));
        }
    }
    Ok(())
}

/// [`check_sizes`] of a folder.
pub(crate) fn check_folder(dims: Dims, widths: &[(&str, usize)], folder: &Path) -> Result<()> {
    check_sizes(dims, widths, &*open_weights(folder)?)
}
