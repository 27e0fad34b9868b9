//! The built-in task files, in `tasks/` of this crate.

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../tasks/", $name)))
    };
}

/// The built-in task files as `(FOLDER/FILE, text)`.
pub(super) const FILES: &[(&str, &str)] = &[
    file!("arc/arc_challenge.yaml"),
    file!("arc/arc_easy.yaml"),
    file!("gsm8k/gsm8k.yaml"),
    file!("piqa/piqa.yaml"),
];
