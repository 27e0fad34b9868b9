//! A model in memory as a source of weights, so that it is written like one in files.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, shapes, visit_params};
use ft_core::{Error, Result, WeightSource};

/// The parameters of a model without adapters.
#[derive(Debug)]
pub struct ModelWeights<'a, M> {
    model: &'a M,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl<'a, M: Module> ModelWeights<'a, M> {
    /// The parameters of this model.
    ///
    /// # Errors
    ///
    /// If the model carries adapters, which would be lost.
    pub fn new(model: &'a M) -> Result<Self> {
        let shapes: BTreeMap<String, Vec<usize>> = shapes(model)
            .into_iter()
            .map(|(path, shape)| (path, shape.to_vec()))
            .collect();
        match shapes.keys().find(|path| path.contains("adapters.")) {
            Some(adapter) => Err(Error::Settings(format!(
                "the model carries adapters ({adapter}), which the file would lose: merge them first"
            ))),
            None => Ok(Self { model, shapes }),
        }
    }
}

impl<M: Module> WeightSource for ModelWeights<'_, M> {
    fn path(&self) -> &Path {
        Path::new("the model in memory")
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.shapes.keys().map(String::as_str))
    }

    fn contains(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let shape = self.shapes.get(name).cloned();
        shape.ok_or_else(|| Error::Settings(format!("the model has no parameter {name}")))
    }

    fn widened(&self, name: &str) -> Result<TensorData> {
        struct Read<'a>(&'a str, Option<TensorData>);
        impl PathVisitor for Read<'_> {
            fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
                if path == self.0 {
                    self.1 = Some(param.val().cast(DType::F32).into_data());
                }
            }
        }
        let mut read = Read(name, None);
        visit_params(self.model, &mut read);
        read.1
            .ok_or_else(|| Error::Settings(format!("the model has no parameter {name}")))
    }

    fn stored(&self, name: &str) -> Result<TensorData> {
        self.widened(name)
    }
}
