//! A folder with packed matrices as a source of weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{FloatDType, TensorData};
use serde_json::Value;

use super::reader::{Reader, transposed};
use super::{Matrix, PackedLayout};
use crate::files::safetensors_folder::{WeightFiles, check_finite};
use crate::{Error, PackedBytes, RawTensor, Result, WeightSource};

/// A folder of Hugging Face whose matrices are packed.
#[derive(Debug)]
pub struct PackedFolder {
    files: WeightFiles,
    layout: PackedLayout,
    settings: Value,
    /// What each name is.
    places: BTreeMap<String, Place>,
    /// Biases of zeros that packages add to packed layers.
    added: BTreeSet<String>,
    warned: AtomicBool,
}

#[derive(Debug)]
enum Place {
    /// A tensor of the file.
    Plain,
    /// The weight of a layer.
    Matrix {
        path: String,
        /// `[out, in]`.
        shape: [usize; 2],
        /// Whether it lies as `[in, out]` where it is not packed.
        transposed: bool,
    },
}

impl PackedFolder {
    /// Opens the weights of a folder, whose `config.json` is given and has a `quantization_config`.
    ///
    /// # Errors
    ///
    /// If a file is missing or truncated, the layout or one of its settings is not read here, or the tensors of a matrix do not
    /// fit together.
    pub fn open(folder: &Path, config: &Value) -> Result<Self> {
        let settings = config["quantization_config"].clone();
        let layout = PackedLayout::of(&settings)
            .map_err(|reason| Error::invalid(&folder.join("config.json"), reason))?;
        let files = WeightFiles::open(folder)?;
        let path_of = |name: &str| {
            let mut marks = layout.marks().iter();
            marks.find_map(|mark| Some(name.strip_suffix(mark)?.strip_suffix('.')?.to_string()))
        };
        let paths: BTreeSet<String> = files.names().filter_map(path_of).collect();
        let is_gpt2 = config["model_type"] == "gpt2";
        let mut places = BTreeMap::new();
        for path in &paths {
            let reader = Reader {
                files: &files,
                path,
                settings: &settings,
            };
            let place = Place::Matrix {
                path: path.clone(),
                shape: layout.shape(&reader)?,
                // Layers of GPT-2 are `Conv1D`, except for its heads.
                transposed: is_gpt2 && path.contains(".c_"),
            };
            places.insert(format!("{path}.weight"), place);
        }
        let mut added = BTreeSet::new();
        for name in files.names() {
            let mut ends = layout.marks().iter().chain(layout.ends());
            let part = ends.any(|end| {
                let path = name
                    .strip_suffix(end)
                    .and_then(|path| path.strip_suffix('.'));
                path.is_some_and(|path| paths.contains(path))
            });
            if part {
                continue;
            }
            let biased = name.strip_suffix(".bias");
            if biased.is_some_and(|path| paths.contains(path)) {
                let (_, _, bytes) = files.raw(name)?;
                if bytes.iter().all(|byte| *byte == 0) {
                    added.insert(name.to_string());
                }
            }
            places.entry(name.to_string()).or_insert(Place::Plain);
        }
        Ok(Self {
            files,
            layout,
            settings,
            places,
            added,
            warned: AtomicBool::new(false),
        })
    }

    /// The layout of its matrices.
    pub fn layout(&self) -> PackedLayout {
        self.layout
    }

    /// A packed matrix; none for other tensors.
    ///
    /// # Errors
    ///
    /// If its tensors do not fit together.
    pub fn matrix(&self, name: &str) -> Result<Option<Matrix>> {
        match self.places.get(name) {
            Some(Place::Matrix { path, .. }) => self.layout.read(&self.reader(path)).map(Some),
            _ => Ok(None),
        }
    }

    fn reader<'a>(&'a self, path: &'a str) -> Reader<'a> {
        Reader {
            files: &self.files,
            path,
            settings: &self.settings,
        }
    }
}

impl WeightSource for PackedFolder {
    fn path(&self) -> &Path {
        self.files.path()
    }

    /// Biases of zeros of packed layers are left out, since packages add them to layers that have none. Those that a model has
    /// are found by their names.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        let names = self
            .places
            .keys()
            .filter(|name| !self.added.contains(*name));
        Box::new(names.map(String::as_str))
    }

    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(match self.places.get(name) {
            Some(Place::Matrix {
                shape: [out, cols],
                transposed: true,
                ..
            }) => vec![*cols, *out],
            Some(Place::Matrix { shape, .. }) => shape.to_vec(),
            _ => self.files.raw(name)?.1,
        })
    }

    fn widened(&self, name: &str) -> Result<TensorData> {
        let Some(matrix) = self.matrix(name)? else {
            return self.files.tensor(name);
        };
        let (numbers, shape) = (matrix.dequantize(), self.shape(name)?);
        let numbers = match shape == matrix.shape() {
            true => numbers,
            false => transposed(&numbers, matrix.shape()),
        };
        Ok(TensorData::new(numbers, shape))
    }

    /// A packed matrix that has no blocks here is decoded into 16 bits, as transformers and vLLM compute with it.
    fn stored(&self, name: &str) -> Result<TensorData> {
        if !matches!(self.places.get(name), Some(Place::Matrix { .. })) {
            return self.files.stored(name);
        }
        let data = self.widened(name)?;
        match check_finite(name, &data, FloatDType::F16) {
            Ok(()) => Ok(data.convert_dtype(burn::tensor::DType::F16)),
            Err(_) => Ok(data),
        }
    }

    fn blocks(&self, name: &str) -> Result<Option<PackedBytes>> {
        let Some(matrix) = self.matrix(name)? else {
            return Ok(None);
        };
        let [_, cols] = matrix.shape();
        let blocks = matrix.blocks();
        if blocks.is_none() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{name} of {} is held in 16 bits: its {cols} columns are not whole blocks of 32, or its groups follow the order in \
                 which columns were rounded (desc_act); other matrices like it are, too",
                self.files.path().display()
            );
        }
        Ok(blocks)
    }

    fn for_each_raw(&self, visit: &mut dyn FnMut(RawTensor<'_>)) -> Result<()> {
        self.files.for_each_raw(visit)
    }
}
