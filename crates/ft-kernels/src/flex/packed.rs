//! The weight of an operation: a tensor, or the words of blocks.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, ExtensionType, Flex, TensorMetadata,
};
use burn::tensor::Tensor;

use super::weight::{Weight, with_rows};
use super::{takes_operand, tensor};
use crate::PackedFormat;

/// What an operation is called with.
#[derive(ExtensionType)]
pub(crate) enum Operand<B: Backend> {
    Dense(FloatTensor<B>),
    /// Words, format and shape.
    Packed(IntTensor<B>, PackedFormat, [usize; 2]),
}

impl Operand<Dispatch> {
    /// What the kernels support.
    pub(crate) fn new(weight: &crate::Weight) -> Option<Self> {
        takes_operand(weight).then(|| match weight {
            crate::Weight::Dense(weight) => Self::Dense(weight.clone().into_dispatch()),
            crate::Weight::Packed(packed) => {
                let words = packed.words().clone().into_dispatch();
                Self::Packed(words, packed.format(), packed.dims())
            }
        })
    }
}

/// The same outside the graph.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// With contiguous rows or columns.
    Dense(FlexTensor),
    /// Contiguous words.
    Packed(FlexTensor, PackedFormat, [usize; 2]),
}

impl Held {
    pub(super) fn new(weight: Operand<Flex>) -> Self {
        match weight {
            Operand::Dense(weight) => Self::Dense(with_rows(weight)),
            Operand::Packed(words, format, shape) => Self::Packed(whole(words), format, shape),
        }
    }

    /// # Panics
    ///
    /// If it is not on Flex, see [`Operand::new`].
    pub(crate) fn outside(weight: crate::Weight) -> Self {
        let flex = |tensor: Tensor<2>| tensor.inner().try_into_primitive::<Flex>();
        match weight {
            crate::Weight::Dense(weight) => {
                Self::Dense(with_rows(flex(weight).expect("a tensor of Flex")))
            }
            crate::Weight::Packed(packed) => {
                let words = packed.words().clone().inner().try_into_primitive::<Flex>();
                let words = whole(words.expect("a tensor of Flex"));
                Self::Packed(words, packed.format(), packed.dims())
            }
        }
    }

    /// With its node in the graph, and whether it trains. Blocks have no node, so they get that of an empty tensor.
    pub(super) fn in_graph<C: CheckpointStrategy>(
        weight: Operand<Autodiff<Flex, C>>,
    ) -> (Self, bool, NodeGuard) {
        match weight {
            Operand::Dense(weight) => {
                let trains = weight.is_tracked();
                let (weight, node) = weight.into_parts();
                (Self::Dense(with_rows(weight)), trains, node)
            }
            Operand::Packed(words, format, shape) => {
                let nothing = Autodiff::<Flex, C>::from_inner(tensor(vec![], [0, 0]));
                let (_, node) = nothing.into_parts();
                (Self::Packed(whole(words), format, shape), false, node)
            }
        }
    }

    pub(super) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.shape().dims(),
            Self::Packed(_, _, shape) => *shape,
        }
    }

    pub(super) fn weight(&self) -> Weight<'_> {
        match self {
            Self::Dense(weight) => Weight::new(weight),
            Self::Packed(words, format, shape) => Weight::packed(Blocks {
                format: *format,
                bytes: &words.bytes()[words.layout().start_offset() * 4..],
                shape: *shape,
            }),
        }
    }
}

fn whole(words: FlexTensor) -> FlexTensor {
    match words.layout().contiguous_offsets() {
        Some(_) => words,
        None => words.to_contiguous(),
    }
}

/// The bytes of a packed weight `[out, in]`.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) format: PackedFormat,
    pub(super) bytes: &'a [u8],
    pub(super) shape: [usize; 2],
}

impl<'a> Blocks<'a> {
    /// The blocks of a row.
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        self.by_row()(row)
    }

    /// The same for many rows, whose size is computed once.
    pub(super) fn by_row(&self) -> impl Fn(usize) -> &'a [u8] + use<'a> {
        let (bytes, size) = (self.bytes, self.format.bytes_of(self.shape[1]));
        move |row| &bytes[row * size..][..size]
    }
}
