//! The built-in tasks: their files, and the functions those files name.

use super::FunctionRegistry;

/// The built-in task files as `(FOLDER/FILE, text)`; a file's folder is where its functions are looked up.
pub(super) const FILES: &[(&str, &str)] = &[];

/// Adds the functions of the built-in tasks.
pub(super) fn register(_registry: &mut FunctionRegistry) {}
