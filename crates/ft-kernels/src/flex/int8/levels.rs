//! How the blocks of each format are read: 32 numbers at a time as levels of 8 bits, and the scales in `f32`.
//!
//! `w = s·q − t`, where `s` and `t` are the same for 16 or 32 numbers. All functions need AVX2, FMA and F16C.

use std::arch::x86_64::*;

use crate::packed::{
    int_groups, iq4_nl, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0,
};

/// Scales and minima of a block, in registers or in memory.
pub(super) trait Scales: Copy {
    /// The scale of each quarter of a chunk's halves: lanes 0 to 3 belong to its first 16 numbers.
    ///
    /// # Safety
    ///
    /// The processor has AVX2, as for all functions here.
    unsafe fn of_chunk(&self, chunk: usize) -> __m256;

    /// Adds the products of all minima of the block with the sums of their groups.
    ///
    /// # Safety
    ///
    /// The sums of the block's groups can be read.
    unsafe fn add_minima(&self, sums: *const f32, to: __m256) -> __m256;

    /// Scale and minimum of a group.
    fn of_group(&self, group: usize) -> (f32, f32);
}

/// The same for all `CHUNKS` chunks of a block.
#[derive(Clone, Copy)]
pub(super) struct Same<const CHUNKS: usize> {
    s: f32,
    t: f32,
}

impl<const CHUNKS: usize> Scales for Same<CHUNKS> {
    #[inline(always)]
    unsafe fn of_chunk(&self, _: usize) -> __m256 {
        // SAFETY: the instructions are there.
        unsafe { _mm256_set1_ps(self.s) }
    }

    #[inline(always)]
    unsafe fn add_minima(&self, sums: *const f32, to: __m256) -> __m256 {
        // SAFETY: the instructions are there, and the block has a sum for each chunk.
        unsafe {
            let mut sum = _mm_load_ss(sums);
            for chunk in 1..CHUNKS {
                sum = _mm_add_ss(sum, _mm_load_ss(sums.add(chunk)));
            }
            _mm256_fmadd_ps(_mm256_set1_ps(self.t), _mm256_zextps128_ps256(sum), to)
        }
    }

    #[inline(always)]
    fn of_group(&self, _: usize) -> (f32, f32) {
        (self.s, self.t)
    }
}

type Single = Same<1>;

/// Of formats with eight groups of 32 numbers.
#[derive(Clone, Copy)]
pub(super) struct Eight {
    s: [f32; 8],
    t: [f32; 8],
}

impl Scales for Eight {
    #[inline(always)]
    unsafe fn of_chunk(&self, chunk: usize) -> __m256 {
        // SAFETY: the instructions are there.
        unsafe { _mm256_broadcast_ss(&self.s[chunk]) }
    }

    #[inline(always)]
    unsafe fn add_minima(&self, sums: *const f32, to: __m256) -> __m256 {
        // SAFETY: the instructions are there, and the block has eight sums.
        unsafe { _mm256_fmadd_ps(_mm256_loadu_ps(self.t.as_ptr()), _mm256_loadu_ps(sums), to) }
    }

    #[inline(always)]
    fn of_group(&self, group: usize) -> (f32, f32) {
        (self.s[group], self.t[group])
    }
}

/// Of formats with 16 groups of 16 numbers.
#[derive(Clone, Copy)]
pub(super) struct Sixteen {
    s: [f32; 16],
    t: [f32; 16],
}

impl Scales for Sixteen {
    #[inline(always)]
    unsafe fn of_chunk(&self, chunk: usize) -> __m256 {
        // SAFETY: the instructions are there.
        unsafe {
            let second = _mm_broadcast_ss(&self.s[2 * chunk + 1]);
            _mm256_set_m128(second, _mm_broadcast_ss(&self.s[2 * chunk]))
        }
    }

    #[inline(always)]
    unsafe fn add_minima(&self, sums: *const f32, to: __m256) -> __m256 {
        // SAFETY: the instructions are there, and the block has 16 sums.
        unsafe {
            let (t, sums) = (self.t.as_ptr(), sums);
            let to = _mm256_fmadd_ps(_mm256_loadu_ps(t), _mm256_loadu_ps(sums), to);
            _mm256_fmadd_ps(_mm256_loadu_ps(t.add(8)), _mm256_loadu_ps(sums.add(8)), to)
        }
    }

    #[inline(always)]
    fn of_group(&self, group: usize) -> (f32, f32) {
        (self.s[group], self.t[group])
    }
}

/// A format. `block` points to the bytes of a block, and `chunk` is below [`CHUNKS`](Self::CHUNKS).
pub(super) trait Reader {
    /// Bytes of a block.
    const BYTES: usize;
    /// Chunks of 32 numbers in a block.
    const CHUNKS: usize;
    /// Numbers that share a scale, 16 or 32.
    const GROUP: usize;
    /// Whether levels are signed bytes. Otherwise they are at most [`MOST`](Self::MOST).
    const SIGNED: bool;
    /// Whether `t` is neither 0 nor `s` times a constant.
    const MINIMA: bool;
    const MOST: usize;
    /// The `z` of formats with `w = s·(q − z)`, for which `t = s·z`, or 0.
    const OFFSET: i16;

    /// How its scales are held.
    type Scales: Scales;

    /// # Safety
    ///
    /// The processor has the instructions, and the block is readable.
    unsafe fn scales(block: *const u8) -> Self::Scales;

    /// # Safety
    ///
    /// The processor has the instructions, and the block is readable.
    unsafe fn levels(block: *const u8, chunk: usize) -> __m256i;

    /// Whether blocks are 32 numbers with half a byte each, a scale in the first two bytes and, if there are
    /// [minima](Self::MINIMA), `−t` in the next two, so that [`pair`](Self::pair) reads them.
    const PAIRED: bool = false;

    /// The first 16 levels of two blocks, and the others.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, the blocks are readable, and the format is paired.
    unsafe fn pair(_: *const u8, _: *const u8) -> [__m256i; 2] {
        unreachable!("the format is not paired")
    }
}

#[inline(always)]
unsafe fn half(at: *const u8) -> f32 {
    // SAFETY: the caller's blocks have two bytes there.
    unsafe {
        let bits = at.cast::<u16>().read_unaligned();
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
    }
}

/// Four floats of 16 bits.
#[inline(always)]
pub(super) unsafe fn four_halves(at: [*const u8; 4]) -> __m128 {
    // SAFETY: the caller's blocks have two bytes there.
    unsafe {
        let bits = at.map(|at| i32::from(at.cast::<u16>().read_unaligned()));
        let halves = _mm_cvtsi32_si128(bits[0]);
        let halves = _mm_insert_epi16::<1>(halves, bits[1]);
        let halves = _mm_insert_epi16::<2>(halves, bits[2]);
        _mm_cvtph_ps(_mm_insert_epi16::<3>(halves, bits[3]))
    }
}

#[inline(always)]
unsafe fn load(at: *const u8) -> __m256i {
    // SAFETY: the caller's blocks have 32 bytes there, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

/// 16 bytes as 32 numbers, the low halves first.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> __m256i {
    // SAFETY: the caller's blocks have 16 bytes there, and the load needs no alignment.
    unsafe {
        let bytes = _mm_loadu_si128(at.cast());
        let both = _mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes);
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }
}

/// Twice 16 bytes as the low halves of both, and the high ones.
#[inline(always)]
unsafe fn nibbles_of_two(a: *const u8, b: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's blocks have 16 bytes there, and the loads need no alignment.
    unsafe {
        let both = _mm256_loadu2_m128i(b.cast(), a.cast());
        let mask = _mm256_set1_epi8(15);
        let high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
        [_mm256_and_si256(both, mask), high]
    }
}

/// 16 in every byte whose bit is set: of the first two bytes, and of the others.
#[inline(always)]
unsafe fn fifth_bits_of_two(a: *const u8, b: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's blocks have four bytes there.
    unsafe {
        let word = |at: *const u8| _mm_set1_epi32(at.cast::<i32>().read_unaligned());
        let bits = _mm256_set_m128i(word(b), word(a));
        let bit_of_each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
        let set = |first: i64| {
            let ones = 0x0101_0101_0101_0101;
            let (low, high) = (first * ones, (first + 1) * ones);
            let bytes = _mm256_shuffle_epi8(bits, _mm256_set_epi64x(high, low, high, low));
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit_of_each), bit_of_each);
            _mm256_and_si256(set, _mm256_set1_epi8(16))
        };
        [set(0), set(2)]
    }
}

/// 16 in every byte whose bit of the four bytes is set.
#[inline(always)]
unsafe fn fifth_bits(at: *const u8) -> __m256i {
    // SAFETY: the caller's blocks have four bytes there.
    unsafe {
        let bits = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
        let byte_of_each = _mm256_set_epi64x(
            0x0303_0303_0303_0303,
            0x0202_0202_0202_0202,
            0x0101_0101_0101_0101,
            0,
        );
        let bits = _mm256_shuffle_epi8(bits, byte_of_each);
        let bit_of_each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit_of_each), bit_of_each);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    }
}

/// The bits `mask` of every byte, after it is shifted right.
#[inline(always)]
unsafe fn bits(bytes: __m256i, shift: usize, mask: i8) -> __m256i {
    // SAFETY: the instructions are there, see `Reader`. Bits of the next byte are masked.
    unsafe {
        let shifted = _mm256_srlv_epi32(bytes, _mm256_set1_epi32(shift as i32));
        _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
    }
}

/// Eight bytes that are not negative, times `d`.
#[inline(always)]
unsafe fn times_bytes(d: f32, bytes: [u8; 8]) -> [f32; 8] {
    let mut out = [0.0; 8];
    // SAFETY: the instructions are there, see `Reader`, and the array has eight numbers.
    unsafe {
        let wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
        let product = _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(d));
        _mm256_storeu_ps(out.as_mut_ptr(), product);
    }
    out
}

/// 16 signed bytes times `d`, and that times `offset`.
#[inline(always)]
unsafe fn with_offset(d: f32, bytes: __m128i, offset: f32) -> Sixteen {
    let (mut s, mut t) = ([0.0; 16], [0.0; 16]);
    // SAFETY: the instructions are there, see `Reader`, and the arrays have 16 numbers.
    unsafe {
        let (d, offset) = (_mm256_set1_ps(d), _mm256_set1_ps(offset));
        for (i, bytes) in [bytes, _mm_srli_si128(bytes, 8)].into_iter().enumerate() {
            let product = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), d);
            _mm256_storeu_ps(s.as_mut_ptr().add(8 * i), product);
            _mm256_storeu_ps(t.as_mut_ptr().add(8 * i), _mm256_mul_ps(product, offset));
        }
    }
    Sixteen { s, t }
}

/// The bytes of a block at a place.
#[inline(always)]
unsafe fn array<const N: usize>(at: *const u8) -> [u8; N] {
    // SAFETY: the caller's blocks have these bytes, and bytes need no alignment.
    unsafe { at.cast::<[u8; N]>().read() }
}

/// `$block` and `$chunk` are the arguments of the functions.
macro_rules! reader {
    ($name:ident: $bytes:expr, $held:ident, chunks $chunks:literal, group $group:literal, signed $signed:literal, minima $minima:literal, most $most:literal, offset $offset:literal;
     |$b1:ident| $scales:expr; |$b2:ident, $chunk:ident| $levels:expr $(; |$a:ident, $b:ident| $pair:expr)?) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;

        impl Reader for $name {
            type Scales = $held;
            const BYTES: usize = $bytes;
            const CHUNKS: usize = $chunks;
            const GROUP: usize = $group;
            const SIGNED: bool = $signed;
            const MINIMA: bool = $minima;
            const MOST: usize = $most;
            const OFFSET: i16 = $offset;

            #[inline(always)]
            unsafe fn scales($b1: *const u8) -> $held {
                // SAFETY: all places are in the block, which the caller can read.
                unsafe { $scales }
            }

            #[inline(always)]
            unsafe fn levels($b2: *const u8, $chunk: usize) -> __m256i {
                let _ = $chunk;
                // SAFETY: all places are in the block, which the caller can read.
                unsafe { $levels }
            }

            $(
                const PAIRED: bool = true;

                #[inline(always)]
                unsafe fn pair($a: *const u8, $b: *const u8) -> [__m256i; 2] {
                    // SAFETY: all places are in the blocks, which the caller can read.
                    unsafe { $pair }
                }
            )?
        }
    };
}

reader! {
    Q4_0: q4_0::BYTES, Single, chunks 1, group 32, signed false, minima false, most 15, offset 8;
    |block| { let s = half(block); Single { s, t: 8.0 * s } };
    |block, chunk| nibbles(block.add(2));
    |a, b| nibbles_of_two(a.add(2), b.add(2))
}

reader! {
    Q4_1: q4_1::BYTES, Single, chunks 1, group 32, signed false, minima true, most 15, offset 0;
    |block| Single { s: half(block), t: -half(block.add(2)) };
    |block, chunk| nibbles(block.add(4));
    |a, b| nibbles_of_two(a.add(4), b.add(4))
}

reader! {
    Q5_0: q5_0::BYTES, Single, chunks 1, group 32, signed false, minima false, most 31, offset 16;
    |block| { let s = half(block); Single { s, t: 16.0 * s } };
    |block, chunk| _mm256_or_si256(nibbles(block.add(6)), fifth_bits(block.add(2)));
    |a, b| {
        let [low, high] = nibbles_of_two(a.add(6), b.add(6));
        let [low_fifth, high_fifth] = fifth_bits_of_two(a.add(2), b.add(2));
        [_mm256_or_si256(low, low_fifth), _mm256_or_si256(high, high_fifth)]
    }
}

reader! {
    Q5_1: q5_1::BYTES, Single, chunks 1, group 32, signed false, minima true, most 31, offset 0;
    |block| Single { s: half(block), t: -half(block.add(2)) };
    |block, chunk| _mm256_or_si256(nibbles(block.add(8)), fifth_bits(block.add(4)));
    |a, b| {
        let [low, high] = nibbles_of_two(a.add(8), b.add(8));
        let [low_fifth, high_fifth] = fifth_bits_of_two(a.add(4), b.add(4));
        [_mm256_or_si256(low, low_fifth), _mm256_or_si256(high, high_fifth)]
    }
}

reader! {
    Q8_0: q8_0::BYTES, Single, chunks 1, group 32, signed true, minima false, most 128, offset 0;
    |block| Single { s: half(block), t: 0.0 };
    |block, chunk| load(block.add(2))
}

reader! {
    Iq4Nl: iq4_nl::BYTES, Single, chunks 1, group 32, signed true, minima false, most 128, offset 0;
    |block| Single { s: half(block), t: 0.0 };
    |block, chunk| {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(iq4_nl::TABLE.as_ptr().cast()));
        _mm256_shuffle_epi8(table, nibbles(block.add(2)))
    };
    |a, b| {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(iq4_nl::TABLE.as_ptr().cast()));
        let [low, high] = nibbles_of_two(a.add(2), b.add(2));
        [_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high)]
    }
}

reader! {
    Q2K: q2_k::BYTES, Sixteen, chunks 8, group 16, signed false, minima true, most 3, offset 0;
    |block| {
        let (d, m) = (half(block.add(80)), half(block.add(82)));
        let bytes = array::<16>(block);
        let (mut s, mut t) = ([0.0; 16], [0.0; 16]);
        for i in 0..2 {
            let part: [u8; 8] = std::array::from_fn(|j| bytes[8 * i + j]);
            s.as_chunks_mut().0[i] = times_bytes(d, part.map(|x| x & 15));
            t.as_chunks_mut().0[i] = times_bytes(m, part.map(|x| x >> 4));
        }
        Sixteen { s, t }
    };
    |block, chunk| bits(load(block.add(16 + chunk / 4 * 32)), chunk % 4 * 2, 3)
}

reader! {
    Q3K: q3_k::BYTES, Sixteen, chunks 8, group 16, signed false, minima false, most 7, offset 4;
    |block| {
        let s = q3_k::scales(&array::<12>(block.add(96)));
        with_offset(half(block.add(108)), _mm_loadu_si128(s.as_ptr().cast()), 4.0)
    };
    |block, chunk| {
        let low = bits(load(block.add(32 + chunk / 4 * 32)), chunk % 4 * 2, 3);
        let third = bits(load(block), chunk, 1);
        _mm256_or_si256(low, _mm256_slli_epi16(third, 2))
    }
}

/// The scales of `Q4_K` and `Q5_K`.
#[inline(always)]
unsafe fn scales_of_q4_k(block: *const u8) -> Eight {
    // SAFETY: the first 16 bytes of the caller's block.
    unsafe {
        let (d, m) = (half(block), half(block.add(2)));
        let (s, t) = q4_k::scales(&array::<12>(block.add(4)));
        Eight {
            s: times_bytes(d, s),
            t: times_bytes(m, t),
        }
    }
}

reader! {
    Q4K: q4_k::BYTES, Eight, chunks 8, group 32, signed false, minima true, most 15, offset 0;
    |block| scales_of_q4_k(block);
    |block, chunk| bits(load(block.add(16 + chunk / 2 * 32)), chunk % 2 * 4, 15)
}

reader! {
    Q5K: q5_k::BYTES, Eight, chunks 8, group 32, signed false, minima true, most 31, offset 0;
    |block| scales_of_q4_k(block);
    |block, chunk| {
        let low = bits(load(block.add(48 + chunk / 2 * 32)), chunk % 2 * 4, 15);
        let fifth = bits(load(block.add(16)), chunk, 1);
        _mm256_or_si256(low, _mm256_slli_epi16(fifth, 4))
    }
}

reader! {
    Q6K: q6_k::BYTES, Sixteen, chunks 8, group 16, signed false, minima false, most 63, offset 32;
    |block| with_offset(half(block.add(208)), _mm_loadu_si128(block.add(192).cast()), 32.0);
    |block, chunk| {
        let (part, k) = (chunk / 4, chunk % 4);
        let low = bits(load(block.add(64 * part + k % 2 * 32)), k / 2 * 4, 15);
        let high = bits(load(block.add(128 + 32 * part)), 2 * k, 3);
        _mm256_or_si256(low, _mm256_slli_epi16(high, 4))
    }
}

/// Scale and minimum of a group of integers: `t = s·(z − offset)`, where levels are less by the offset.
#[inline(always)]
unsafe fn scale_of_integers<const CHUNKS: usize>(block: *const u8, offset: f32) -> Same<CHUNKS> {
    // SAFETY: the first six bytes of the caller's block.
    unsafe {
        let s = block.cast::<f32>().read_unaligned();
        Same {
            s,
            t: s * (half(block.add(4)) - offset),
        }
    }
}

/// Groups of integers of 4 bits.
pub(super) struct Int4<const CHUNKS: usize>;

impl<const CHUNKS: usize> Reader for Int4<CHUNKS> {
    type Scales = Same<CHUNKS>;
    const BYTES: usize = int_groups::bytes(4, 32 * CHUNKS);
    const CHUNKS: usize = CHUNKS;
    const GROUP: usize = 32;
    const SIGNED: bool = false;
    const MINIMA: bool = true;
    const MOST: usize = 15;
    const OFFSET: i16 = 0;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Same<CHUNKS> {
        // SAFETY: as for this function.
        unsafe { scale_of_integers(block, 0.0) }
    }

    #[inline(always)]
    unsafe fn levels(block: *const u8, chunk: usize) -> __m256i {
        // SAFETY: the bytes of the chunk are in the block, which the caller can read.
        unsafe { nibbles(block.add(int_groups::HEAD + 16 * chunk)) }
    }
}

/// Groups of integers of 8 bits, which become signed.
pub(super) struct Int8<const CHUNKS: usize>;

impl<const CHUNKS: usize> Reader for Int8<CHUNKS> {
    type Scales = Same<CHUNKS>;
    const BYTES: usize = int_groups::bytes(8, 32 * CHUNKS);
    const CHUNKS: usize = CHUNKS;
    const GROUP: usize = 32;
    const SIGNED: bool = true;
    const MINIMA: bool = true;
    const MOST: usize = 128;
    const OFFSET: i16 = 0;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Same<CHUNKS> {
        // SAFETY: as for this function.
        unsafe { scale_of_integers(block, 128.0) }
    }

    #[inline(always)]
    unsafe fn levels(block: *const u8, chunk: usize) -> __m256i {
        // SAFETY: the bytes of the chunk are in the block, which the caller can read.
        unsafe {
            let levels = load(block.add(int_groups::HEAD + 32 * chunk));
            _mm256_xor_si256(levels, _mm256_set1_epi8(-128))
        }
    }
}
