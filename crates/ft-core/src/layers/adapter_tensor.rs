//! A tensor of an adapter: a parameter of one to four dimensions, with its name in the adapter's file.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Shape, Tensor, TensorData};

/// A parameter of one to four dimensions.
#[derive(Module, Debug)]
pub enum AnyParam {
    /// One dimension.
    D1(Param<Tensor<1>>),
    /// Two dimensions.
    D2(Param<Tensor<2>>),
    /// Three dimensions.
    D3(Param<Tensor<3>>),
    /// Four dimensions.
    D4(Param<Tensor<4>>),
}

/// The same expression for a parameter of any number of dimensions.
macro_rules! any {
    ($self:expr, $param:ident => $value:expr) => {
        match $self {
            AnyParam::D1($param) => $value,
            AnyParam::D2($param) => $value,
            AnyParam::D3($param) => $value,
            AnyParam::D4($param) => $value,
        }
    };
}

/// The same parameter with another value, made by an expression.
macro_rules! changed {
    ($self:expr, $param:ident => $value:expr) => {
        match $self {
            AnyParam::D1($param) => AnyParam::D1($value),
            AnyParam::D2($param) => AnyParam::D2($value),
            AnyParam::D3($param) => AnyParam::D3($value),
            AnyParam::D4($param) => AnyParam::D4($value),
        }
    };
}

/// A tensor of an [`Adapter`](crate::layers::Adapter).
#[derive(Clone, Debug)]
pub struct AdapterTensor {
    name: String,
    shared: bool,
    trains: bool,
    saved: bool,
    unprefixed: bool,
    pub(super) param: AnyParam,
}

impl AdapterTensor {
    /// A tensor that trains. `name` is what its key in a file ends in: `lora_A.weight`.
    pub fn new(name: impl Into<String>, tensor: impl Into<AnyParam>) -> Self {
        Self {
            name: name.into(),
            shared: false,
            trains: true,
            saved: true,
            unprefixed: false,
            param: tensor.into(),
        }
    }

    /// The same tensor, which never trains.
    #[must_use]
    pub fn frozen(self) -> Self {
        let param = changed!(self.param, param => param.set_require_grad(false));
        Self {
            trains: false,
            param,
            ..self
        }
    }

    /// The same tensor, which all layers of the adapter share and which never trains.
    #[must_use]
    pub fn shared(self) -> Self {
        Self {
            shared: true,
            ..self.frozen()
        }
    }

    /// The same tensor, which is not part of the adapter's file.
    #[must_use]
    pub fn unsaved(self) -> Self {
        Self {
            saved: false,
            ..self
        }
    }

    /// The same tensor, whose key in the adapter's file is its name alone: the adapter has one layer.
    #[must_use]
    pub fn unprefixed(self) -> Self {
        Self {
            unprefixed: true,
            ..self
        }
    }

    /// What its key in a file ends in.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether all layers of the adapter share it.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether it trains when its adapter does.
    pub fn trains(&self) -> bool {
        self.trains
    }

    /// Whether it is part of the adapter's file.
    pub fn is_saved(&self) -> bool {
        self.saved
    }

    /// Whether its key in the adapter's file is its name alone.
    pub fn is_unprefixed(&self) -> bool {
        self.unprefixed
    }

    /// The parameter.
    pub fn param(&self) -> &AnyParam {
        &self.param
    }

    /// Its numbers.
    pub fn data(&self) -> TensorData {
        any!(&self.param, param => param.val().into_data())
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        any!(&self.param, param => param.lazy_shape())
    }

    /// Whether it trains now.
    pub fn is_trainable(&self) -> bool {
        any!(&self.param, param => param.is_require_grad())
    }

    /// Puts other numbers of the same shape in its place.
    ///
    /// # Panics
    ///
    /// If the shape differs.
    pub fn set(&mut self, data: TensorData) {
        assert_eq!(
            data.shape()[..],
            self.shape()[..],
            "{}: the shape is that of the tensor",
            self.name
        );
        self.param = changed!(self.param.clone(), param => {
            let (id, device) = (param.id, param.lazy_device());
            let dtype = param.val().dtype();
            let value = Tensor::from_data(data.convert_dtype(dtype), (&device, dtype));
            param.transform_for_load(value, id)
        });
    }

    /// Visits the parameter itself: how many dimensions it has is not part of its path.
    pub(super) fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        any!(&self.param, param => param.visit(visitor));
    }

    /// Maps the parameter itself.
    pub(super) fn map<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        self.param = changed!(self.param, param => Module::map(param, mapper));
        self
    }

    /// Lets it train, or not. A tensor that never trains stays frozen.
    pub(super) fn set_trainable(&mut self, trainable: bool) {
        let wanted = trainable && self.trains;
        self.param = changed!(self.param.clone(), param => param.set_require_grad(wanted));
    }
}

/// The value of a tensor of this number of dimensions.
macro_rules! of_rank {
    ($($variant:ident: $rank:literal, $get:ident);* $(;)?) => {
        impl AdapterTensor {
            $(
                /// The value of a tensor of this number of dimensions.
                ///
                /// # Panics
                ///
                /// If it has another number of dimensions.
                pub fn $get(&self) -> Tensor<$rank> {
                    match &self.param {
                        AnyParam::$variant(param) => param.val(),
                        _ => panic!("{} has not {} dimensions", self.name, $rank),
                    }
                }
            )*
        }

        $(
            impl From<Tensor<$rank>> for AnyParam {
                fn from(tensor: Tensor<$rank>) -> Self {
                    Self::$variant(Param::from_tensor(tensor))
                }
            }

            impl From<Param<Tensor<$rank>>> for AnyParam {
                fn from(param: Param<Tensor<$rank>>) -> Self {
                    Self::$variant(param)
                }
            }
        )*
    };
}

of_rank! {
    D1: 1, val1;
    D2: 2, val2;
    D3: 3, val3;
    D4: 4, val4;
}
