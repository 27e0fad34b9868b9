//! Parameters by path, in Hugging Face's names.
//!
//! The paths are Burn's, joined with dots, without the name of the enum variant that an
//! [`AutoCausalLm`](crate::AutoCausalLm) adds: `model.layers.0.self_attn.q_proj.weight`. Checkpoints,
//! adapters, optimizers and error messages all speak of parameters by these names. A field whose name ends in
//! `_` loses it: `self_` is `self`, which Rust does not allow as a name. A field whose name begins with `_` has no name in
//! paths: what it holds is called as if it were part of the struct itself.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Shape, Tensor};

/// Keeps track of where a traversal is; to be called from `enter_module` and `exit_module`.
#[derive(Debug, Default)]
pub struct PathStack {
    names: Vec<String>,
    counted: Vec<bool>,
}

impl PathStack {
    /// Steps into a module.
    pub fn enter(&mut self, name: &str, container_type: &str) {
        let counts = !container_type.starts_with("Enum:") && !name.starts_with('_');
        self.counted.push(counts);
        if counts {
            self.names
                .push(name.strip_suffix('_').unwrap_or(name).to_string());
        }
    }

    /// Steps out of it again.
    pub fn exit(&mut self) {
        if self.counted.pop() == Some(true) {
            self.names.pop();
        }
    }

    /// The path of where the traversal is, joined with dots.
    pub fn path(&self) -> String {
        self.names.join(".")
    }
}

/// `path.name`, or the name alone where the path is empty.
pub fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_string(),
        _ => format!("{path}.{name}"),
    }
}

/// Name and shape of every float parameter, in order of traversal, without initialising any.
pub fn shapes(module: &impl Module) -> Vec<(String, Shape)> {
    struct Shapes {
        path: PathStack,
        found: Vec<(String, Shape)>,
    }
    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.path.path(), param.lazy_shape()));
        }
    }
    let mut visitor = Shapes {
        path: PathStack::default(),
        found: Vec::new(),
    };
    module.visit(&mut visitor);
    visitor.found
}

/// A change of parameters that depends on their path.
pub trait PathMapper {
    /// Maps one float parameter.
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Applies `mapper` to every float parameter of `module`.
pub fn map_params<M: Module>(module: M, mapper: &mut impl PathMapper) -> M {
    struct Adapter<'a, P> {
        path: PathStack,
        mapper: &'a mut P,
    }
    impl<P: PathMapper> ModuleMapper for Adapter<'_, P> {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.mapper.map(&self.path.path(), param)
        }
    }
    module.map(&mut Adapter {
        path: PathStack::default(),
        mapper,
    })
}

/// A look at parameters that depends on their path.
pub trait PathVisitor {
    /// Visits one float parameter.
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>);
}

/// Shows every float parameter of `module` to `visitor`.
pub fn visit_params(module: &impl Module, visitor: &mut impl PathVisitor) {
    struct Adapter<'a, P> {
        path: PathStack,
        visitor: &'a mut P,
    }
    impl<P: PathVisitor> ModuleVisitor for Adapter<'_, P> {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.visitor.visit(&self.path.path(), param);
        }
    }
    module.visit(&mut Adapter {
        path: PathStack::default(),
        visitor,
    });
}
