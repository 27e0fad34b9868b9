//! Parameters by path, in Hugging Face's names.
//!
//! The paths are Burn's, joined with dots, without the name of the enum variant that an
//! [`AutoCausalLm`](crate::AutoCausalLm) adds: `model.layers.0.self_attn.q_proj.weight`. Checkpoints,
//! adapters, optimizers and error messages all speak of parameters by these names. A field whose name ends in
//! `_` loses it: `self_` is `self`, which Rust does not allow as a name. A field whose name begins with `_` has no name in
//! paths: what it holds is called as if it were part of the struct itself.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Int, Shape, Tensor};

use crate::layers::PackedParam;
use crate::layers::weight::{Label, PACKED};

/// Keeps track of where a traversal is; to be called from `enter_module` and `exit_module`.
#[derive(Debug, Default)]
pub struct PathStack {
    names: Vec<String>,
    counted: Vec<bool>,
}

impl PathStack {
    /// Steps into a module.
    pub fn enter(&mut self, name: &str, container_type: &str) {
        let counts = !container_type.starts_with("Enum:")
            && container_type != PACKED
            && !name.starts_with('_');
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

/// Name and shape of every float parameter, in order of traversal, without initialising any. Weights in blocks are among
/// them.
pub fn shapes(module: &impl Module) -> Vec<(String, Shape)> {
    struct Shapes(Vec<(String, Shape)>);
    impl PathVisitor for Shapes {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.0.push((path.to_string(), param.lazy_shape()));
        }
    }
    let mut visitor = Shapes(Vec::new());
    visit_params(module, &mut visitor);
    visitor.0
}

/// Draws all random weights that were not read yet, which would otherwise be drawn when they are first read, from what
/// [`Device::seed`](burn::tensor::Device::seed) and all draws between have left of the generator then.
pub fn draw(module: &impl Module) {
    struct Draw;
    impl PathVisitor for Draw {
        fn visit<const D: usize>(&mut self, _: &str, param: &Param<Tensor<D>>) {
            param.val();
        }
    }
    visit_params(module, &mut Draw);
}

/// Path and blocks of every weight in blocks.
pub fn packed_weights(module: &impl Module) -> Vec<(String, PackedParam)> {
    struct Blocks(Vec<(String, PackedParam)>);
    impl PathVisitor for Blocks {
        fn visit<const D: usize>(&mut self, _: &str, _: &Param<Tensor<D>>) {}
        fn visit_packed(&mut self, path: &str, packed: &PackedParam) {
            self.0.push((path.to_string(), packed.clone()));
        }
    }
    let mut visitor = Blocks(Vec::new());
    visit_params(module, &mut visitor);
    visitor.0
}

/// A change of parameters that depends on their path.
pub trait PathMapper {
    /// Maps one float parameter. Weights in blocks stay as they are: [`dequantize`](crate::dequantize) makes parameters of
    /// them.
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

    /// Visits a weight in blocks. By default it is visited as a parameter that does not train and whose numbers are decoded
    /// when they are first read, for the time of the visit.
    fn visit_packed(&mut self, path: &str, packed: &PackedParam) {
        self.visit(path, &packed.decoded());
    }
}

/// Shows every float parameter and every weight in blocks of `module` to `visitor`.
pub fn visit_params(module: &impl Module, visitor: &mut impl PathVisitor) {
    struct Adapter<'a, P> {
        path: PathStack,
        packed: Option<Label>,
        visitor: &'a mut P,
    }
    impl<P: PathVisitor> ModuleVisitor for Adapter<'_, P> {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
            self.packed = match container_type {
                PACKED => name.parse().ok(),
                _ => None,
            };
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
            self.packed = None;
        }
        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            if let Some(label) = self.packed {
                let packed = label.around(param);
                self.visitor.visit_packed(&self.path.path(), &packed);
            }
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.visitor.visit(&self.path.path(), param);
        }
    }
    module.visit(&mut Adapter {
        path: PathStack::default(),
        packed: None,
        visitor,
    });
}
