//! The formats with Burn's operations on integers of 32 bits, for devices without kernels: some have no bytes.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::{PackedFormat, int8_rows, iq4_nl, nf4};

/// The numbers of whole rows of `cols`, `[numbers]`, given their bytes as integers, `[bytes]`.
pub(super) fn decode(format: PackedFormat, bytes: Tensor<1, Int>, cols: usize) -> Tensor<1> {
    let size = match format {
        PackedFormat::INT8 => format.bytes_of(cols),
        _ => format.block_bytes(),
    };
    let count = bytes.dims()[0] / size;
    let block = Block {
        bytes: bytes.reshape([count, size]),
        count,
    };
    let numbers = match format {
        PackedFormat::Q4_0 => (block.nibbles(2, 16) - 8.0) * block.half(0),
        PackedFormat::Q4_1 => block.nibbles(4, 16) * block.half(0) + block.half(2),
        PackedFormat::Q5_0 => (block.five_bits(2) - 16.0) * block.half(0),
        PackedFormat::Q5_1 => block.five_bits(4) * block.half(0) + block.half(2),
        PackedFormat::Q8_0 => float(block.signed(2, 32)) * block.half(0),
        PackedFormat::Q2_K => {
            let scales = block.part(0, 16);
            let s = float(low(scales.clone())) * block.half(80);
            let t = float(high(scales)) * block.half(82);
            block.grouped(block.pairs(16), s, Some(t))
        }
        PackedFormat::Q3_K => {
            let third = block.single_bits(0);
            let q = block.pairs(32) + third * 4.0 - 4.0;
            let (a, c) = (block.part(96, 8), block.part(104, 4));
            let upper = (0..4).map(|i| bits(c.clone(), 2 * i, 3)).collect();
            let s = Tensor::cat(vec![low(a.clone()), high(a)], 1) + Tensor::cat(upper, 1) * 16;
            block.grouped(q, float(s - 32) * block.half(108), None)
        }
        PackedFormat::Q4_K => {
            let (s, t) = block.six_bits();
            block.grouped(block.halves(16), s, Some(t))
        }
        PackedFormat::Q5_K => {
            let (s, t) = block.six_bits();
            let q = block.halves(48) + block.single_bits(16) * 16.0;
            block.grouped(q, s, Some(t))
        }
        PackedFormat::Q6_K => {
            // Of every 64 bytes all low halves come first.
            let lower = block.part(0, 128).reshape([count, 2, 1, 64]);
            let lower = Tensor::cat(vec![low(lower.clone()), high(lower)], 2);
            let q = float(lower).reshape([count, 256]) + block.pairs(128) * 16.0 - 32.0;
            let s = float(block.signed(192, 16)) * block.half(208);
            block.grouped(q, s, None)
        }
        PackedFormat::IQ4_NL => {
            let codes = block.nibbles(2, 16).int().reshape([count * 32]);
            let table = iq4_nl::TABLE.map(f32::from);
            let table = Tensor::<1>::from_data(table, (&codes.device(), DType::F32));
            table.select(0, codes).reshape([count, 32]) * block.half(0)
        }
        PackedFormat::NF4 => block.table(&nf4::NF4),
        PackedFormat::FP4 => block.table(&nf4::FP4),
        PackedFormat::INT4_G32 | PackedFormat::INT4_G64 | PackedFormat::INT4_G128 => {
            let size = format.block() / 2;
            let bytes = block.part(6, size).reshape([count, size / 16, 1, 16]);
            let q = Tensor::cat(vec![low(bytes.clone()), high(bytes)], 2);
            (float(q).reshape([count, 2 * size]) - block.half(4)) * block.single(0)
        }
        PackedFormat::INT8_G32 | PackedFormat::INT8_G64 | PackedFormat::INT8_G128 => {
            (float(block.part(6, format.block())) - block.half(4)) * block.single(0)
        }
        PackedFormat::INT8 => {
            let levels = float(block.part(int8_rows::HEAD, cols));
            (levels - f32::from(int8_rows::ZERO)) * block.single(0)
        }
    };
    let [rows, cols] = numbers.dims();
    numbers.reshape([rows * cols])
}

/// The bytes of words of 32 bits as integers, `[4·words]`.
pub(super) fn bytes(words: Tensor<1, Int>) -> Tensor<1, Int> {
    let [count] = words.dims();
    let words = words.reshape([count, 1]);
    let bytes =
        (0..4).map(|i| (words.clone().bitwise_right_shift_scalar(8 * i)).bitwise_and_scalar(255));
    let bytes = Tensor::cat(bytes.collect(), 1).cast(DType::I32);
    bytes.reshape([4 * count])
}

/// The bytes of some rows, `[ids·row_bytes]`.
pub(super) fn bytes_of_rows(
    words: Tensor<1, Int>,
    ids: Tensor<1, Int>,
    row_bytes: usize,
) -> Tensor<1, Int> {
    let (device, [count]) = (ids.device(), ids.dims());
    let places = Tensor::<1, Int>::arange(0..row_bytes as i64, &device).cast(DType::I32);
    let starts = ids
        .cast(DType::I32)
        .mul_scalar(row_bytes as i64)
        .reshape([count, 1]);
    let places = starts.expand([count, row_bytes])
        + places.reshape([1, row_bytes]).expand([count, row_bytes]);
    let places = places.reshape([count * row_bytes]);
    let dtype = words.dtype();
    let words = words.select(0, places.clone().bitwise_right_shift_scalar(2));
    let shifts = places.bitwise_and_scalar(3).mul_scalar(8).cast(dtype);
    (words.bitwise_right_shift(shifts))
        .bitwise_and_scalar(255)
        .cast(DType::I32)
}

/// Blocks as integers.
struct Block {
    /// `[count, bytes of a block]`
    bytes: Tensor<2, Int>,
    count: usize,
}

impl Block {
    fn device(&self) -> Device {
        self.bytes.device()
    }

    /// `[count, size]`
    fn part(&self, at: usize, size: usize) -> Tensor<2, Int> {
        self.bytes.clone().narrow(1, at, size)
    }

    /// A float of 16 bits, `[count, 1]`: `m·2^(e − 25)`, where `m` has the hidden bit if the exponent is not 0.
    fn half(&self, at: usize) -> Tensor<2> {
        let bits = self.part(at, 1) + self.part(at + 1, 1) * 256;
        let exponent = self::bits(bits.clone(), 10, 31).reshape([self.count]);
        let power = |e: i32| match e {
            31 => f32::INFINITY,
            e => 2f32.powi(e.max(1) - 25),
        };
        let powers: [f32; 32] = std::array::from_fn(|e| power(e as i32));
        let table = |values: [f32; 32]| {
            Tensor::<1>::from_data(TensorData::from(values), (&self.device(), DType::F32))
                .select(0, exponent.clone())
                .reshape([self.count, 1])
        };
        let hidden = table(std::array::from_fn(|e| if e == 0 { 0.0 } else { 1024.0 }));
        let sign = float(self::bits(bits.clone(), 15, 1)) * -2.0 + 1.0;
        (float(bits.bitwise_and_scalar(1023)) + hidden) * table(powers) * sign
    }

    /// A float of 32 bits, `[count, 1]`: `m·2⁻²³·2^(e − 127)`, where `m` has the hidden bit if the exponent is not 0.
    fn single(&self, at: usize) -> Tensor<2> {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| self.part(at + i, 1));
        let exponent =
            (bits(c.clone(), 7, 1) + d.clone().bitwise_and_scalar(127) * 2).reshape([self.count]);
        let mantissa = a + b * 256 + c.bitwise_and_scalar(127) * 65536;
        let table = |values: Vec<f32>| {
            Tensor::<1>::from_data(TensorData::new(values, [256]), (&self.device(), DType::F32))
                .select(0, exponent.clone())
                .reshape([self.count, 1])
        };
        let hidden = table(
            (0..256)
                .map(|e| if e == 0 { 0.0 } else { 8_388_608.0 })
                .collect(),
        );
        let power = |e: i32| 2f32.powi(e.max(1) - 127);
        let powers = table((0..256).map(power).collect());
        let sign = float(bits(d, 7, 1)) * -2.0 + 1.0;
        (float(mantissa) + hidden) * 2f32.powi(-23) * powers * sign
    }

    /// Numbers of a table, see `nf4`.
    fn table(&self, table: &[f32; 16]) -> Tensor<2> {
        let bytes = self.part(4, 32).reshape([self.count, 32, 1]);
        let codes =
            Tensor::cat(vec![high(bytes.clone()), low(bytes)], 2).reshape([self.count * 64]);
        let table = Tensor::<1>::from_data(*table, (&self.device(), DType::F32));
        table.select(0, codes).reshape([self.count, 64]) * self.single(0)
    }

    /// Low halves, then high ones.
    fn nibbles(&self, at: usize, size: usize) -> Tensor<2> {
        let bytes = self.part(at, size);
        float(Tensor::cat(vec![low(bytes.clone()), high(bytes)], 1))
    }

    /// See `q5_0`.
    fn five_bits(&self, at: usize) -> Tensor<2> {
        let bytes = self.part(at, 4).reshape([self.count, 4, 1]);
        let fifth = (0..8).map(|i| bits(bytes.clone(), i, 1)).collect();
        let fifth = float(Tensor::cat(fifth, 2)).reshape([self.count, 32]);
        self.nibbles(at + 4, 16) + fifth * 16.0
    }

    fn signed(&self, at: usize, size: usize) -> Tensor<2, Int> {
        (self.part(at, size) + 128).bitwise_and_scalar(255) - 128
    }

    /// Two bits of 64 bytes, `[count, 256]`, see `q2_k`.
    fn pairs(&self, at: usize) -> Tensor<2> {
        let bytes = self.part(at, 64).reshape([self.count, 2, 1, 32]);
        let pairs = (0..4).map(|i| bits(bytes.clone(), 2 * i, 3)).collect();
        float(Tensor::cat(pairs, 2)).reshape([self.count, 256])
    }

    /// Each bit of 32 bytes, `[count, 256]`.
    fn single_bits(&self, at: usize) -> Tensor<2> {
        let bytes = self.part(at, 32).reshape([self.count, 1, 32]);
        let single = (0..8).map(|i| bits(bytes.clone(), i, 1)).collect();
        float(Tensor::cat(single, 1)).reshape([self.count, 256])
    }

    /// Four bits of 128 bytes, `[count, 256]`, see `q4_k`.
    fn halves(&self, at: usize) -> Tensor<2> {
        let bytes = self.part(at, 128).reshape([self.count, 4, 1, 32]);
        float(Tensor::cat(vec![low(bytes.clone()), high(bytes)], 2)).reshape([self.count, 256])
    }

    /// `d·s` and `m·t` of `Q4_K`, `[count, 8]`.
    fn six_bits(&self) -> (Tensor<2>, Tensor<2>) {
        let [a, b, c] = [4, 8, 12].map(|at| self.part(at, 4));
        let join = |first: Tensor<2, Int>, lower: Tensor<2, Int>| {
            let second = lower + bits(first.clone(), 6, 3) * 16;
            float(Tensor::cat(vec![first.bitwise_and_scalar(63), second], 1))
        };
        let s = join(a, low(c.clone())) * self.half(0);
        (s, join(b, high(c)) * self.half(2))
    }

    /// `s·q − t`, where `s` and `t` are `[count, groups]`.
    fn grouped(&self, q: Tensor<2>, s: Tensor<2>, t: Option<Tensor<2>>) -> Tensor<2> {
        let (count, groups) = (self.count, s.dims()[1]);
        let q = q.reshape([count, groups, 256 / groups]);
        let mut numbers = q * s.reshape([count, groups, 1]);
        if let Some(t) = t {
            numbers = numbers - t.reshape([count, groups, 1]);
        }
        numbers.reshape([count, 256])
    }
}

fn float<const D: usize>(x: Tensor<D, Int>) -> Tensor<D> {
    x.float().cast(DType::F32)
}

fn bits<const D: usize>(x: Tensor<D, Int>, shift: i32, mask: i32) -> Tensor<D, Int> {
    x.bitwise_right_shift_scalar(shift).bitwise_and_scalar(mask)
}

fn low<const D: usize>(x: Tensor<D, Int>) -> Tensor<D, Int> {
    x.bitwise_and_scalar(15)
}

fn high<const D: usize>(x: Tensor<D, Int>) -> Tensor<D, Int> {
    bits(x, 4, 15)
}
