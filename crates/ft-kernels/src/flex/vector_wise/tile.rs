//! Products of a panel, or of a few rows of the weight, with some rows of the input, by the instructions that the processor has.
//!
//! All of them give the same sums of integers, and what follows is the same code, so results are equal to the bit.

use std::ops::Range;

use super::super::columns::Columns;
use super::few::TOGETHER;
use super::inputs::Inputs;
use super::panel::{self, Fours, LANES};
use crate::packed::int8_rows::ZERO;

/// How panels are filled and multiplied.
pub(super) trait Instructions {
    /// Whether sums of eight rows of the input fit in registers.
    const EIGHT_ROWS: bool;

    /// A panel of these rows of the weight, which have the same length.
    ///
    /// # Safety
    ///
    /// The processor has the instructions.
    unsafe fn put_rows(rows: &[&[u8]; LANES], panel: &mut [Fours]);

    /// 32 columns of four rows of the weight.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and rows have 32 columns.
    unsafe fn put_columns(rows: [&[u8]; 4], out: &mut Fours);

    /// The sums of `level·(q − 128)` for each of the rows `x` of the input and each line of the panel. `sums` are those of the
    /// levels.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and rows of `x` have as many levels as the panel.
    unsafe fn dots<const N: usize>(
        panel: &[Fours],
        x: [*const i8; N],
        sums: [i32; N],
    ) -> [[i32; LANES]; N];

    /// The sums of `level·(q − 128)` for each of the rows `x` of the input and each of these rows of the weight. `sums` are those of
    /// the levels.
    ///
    /// # Panics
    ///
    /// If a row is shorter than the first row of the weight.
    ///
    /// # Safety
    ///
    /// The processor has the instructions.
    unsafe fn row_dots<const N: usize>(
        weights: [&[u8]; TOGETHER],
        x: [&[i8]; N],
        sums: [i32; N],
    ) -> [[i32; TOGETHER]; N];
}

/// Adds the products of some columns.
#[inline(always)]
fn add_row_dots<const N: usize>(
    weights: [&[u8]; TOGETHER],
    x: [&[i8]; N],
    cols: Range<usize>,
    dots: &mut [[i32; TOGETHER]; N],
) {
    for (dots, x) in dots.iter_mut().zip(x) {
        for (dot, weight) in dots.iter_mut().zip(weights) {
            for (q, level) in weight[cols.clone()].iter().zip(&x[cols.clone()]) {
                *dot += (i32::from(*q) - i32::from(ZERO)) * i32::from(*level);
            }
        }
    }
}

/// The products of a row of the input: `dots·(scale·scales) + beside·scales`.
#[inline(always)]
pub(super) fn finished<const L: usize>(
    dots: &[i32; L],
    scale: f32,
    beside: &[f32; L],
    scales: &[f32; L],
) -> [f32; L] {
    let mut numbers = [0.0; L];
    for lane in 0..L {
        let rounded = dots[lane] as f32 * (scale * scales[lane]);
        numbers[lane] = rounded + beside[lane] * scales[lane];
    }
    numbers
}

/// For any processor.
pub(super) struct Portable;

impl Instructions for Portable {
    const EIGHT_ROWS: bool = false;

    #[inline(always)]
    unsafe fn put_rows(rows: &[&[u8]; LANES], panel: &mut [Fours]) {
        panel::put_rows(rows, 0, panel);
    }

    #[inline(always)]
    unsafe fn put_columns(rows: [&[u8]; 4], out: &mut Fours) {
        panel::put_columns(rows, out);
    }

    #[inline(always)]
    unsafe fn dots<const N: usize>(
        panel: &[Fours],
        x: [*const i8; N],
        _: [i32; N],
    ) -> [[i32; LANES]; N] {
        let mut dots = [[0; LANES]; N];
        for (k, fours) in panel.iter().enumerate() {
            for (dots, x) in dots.iter_mut().zip(x) {
                // SAFETY: the row has as many levels as the panel, which the caller ensures.
                let x = unsafe { x.add(4 * k).cast::<[i8; 4]>().read() };
                for (dot, four) in dots.iter_mut().zip(fours) {
                    for (q, x) in four.iter().zip(x) {
                        *dot += (i32::from(*q) - i32::from(ZERO)) * i32::from(x);
                    }
                }
            }
        }
        dots
    }

    #[inline(always)]
    unsafe fn row_dots<const N: usize>(
        weights: [&[u8]; TOGETHER],
        x: [&[i8]; N],
        _: [i32; N],
    ) -> [[i32; TOGETHER]; N] {
        let mut dots = [[0; TOGETHER]; N];
        add_row_dots(weights, x, 0..weights[0].len(), &mut dots);
        dots
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Vnni};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::super::transposed::transposed;
    use super::{Fours, Instructions, LANES, TOGETHER, ZERO, add_row_dots, panel};

    /// With AVX2.
    pub(in super::super) struct Avx2;

    /// With AVX2 and AVX-512 VNNI.
    pub(in super::super) struct Vnni;

    impl Instructions for Avx2 {
        const EIGHT_ROWS: bool = false;

        #[inline(always)]
        unsafe fn put_rows(rows: &[&[u8]; LANES], panel: &mut [Fours]) {
            let whole = rows[0].len() / 32;
            assert!(rows.iter().all(|row| row.len() >= 32 * whole) && panel.len() >= 8 * whole);
            for (group, rows) in rows.as_chunks::<8>().0.iter().enumerate() {
                for chunk in 0..whole {
                    // SAFETY: the chunk is in the rows, and its eight fours in the panel; both need no alignment.
                    unsafe {
                        let mut words = [_mm256_setzero_si256(); 8];
                        for (words, row) in words.iter_mut().zip(rows) {
                            *words = _mm256_loadu_si256(row.as_ptr().add(32 * chunk).cast());
                        }
                        let words = transposed(words);
                        for (i, words) in words.into_iter().enumerate() {
                            let to = panel.as_mut_ptr().add(8 * chunk + i).cast::<__m256i>();
                            _mm256_storeu_si256(to.add(group), words);
                        }
                    }
                }
            }
            panel::put_rows(rows, 32 * whole, panel);
        }

        #[inline(always)]
        unsafe fn put_columns(rows: [&[u8]; 4], out: &mut Fours) {
            assert!(rows.iter().all(|row| row.len() >= LANES));
            // SAFETY: rows have 32 columns, as was just checked, and the output has 128 bytes; both need no alignment.
            unsafe {
                let [a, b, c, d] = rows.map(|row| _mm256_loadu_si256(row.as_ptr().cast()));
                // Of each half: a0 b0 a1 b1 ...
                let (ab0, ab1) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                let (cd0, cd1) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
                // Of each half the columns 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
                let fours = [
                    _mm256_unpacklo_epi16(ab0, cd0),
                    _mm256_unpackhi_epi16(ab0, cd0),
                    _mm256_unpacklo_epi16(ab1, cd1),
                    _mm256_unpackhi_epi16(ab1, cd1),
                ];
                let to = out.as_mut_ptr().cast::<__m256i>();
                let pair = |i: usize| (fours[2 * i], fours[2 * i + 1]);
                for i in 0..2 {
                    let (even, odd) = pair(i);
                    _mm256_storeu_si256(to.add(i), _mm256_permute2x128_si256(even, odd, 0x20));
                    _mm256_storeu_si256(to.add(2 + i), _mm256_permute2x128_si256(even, odd, 0x31));
                }
            }
        }

        #[inline(always)]
        unsafe fn dots<const N: usize>(
            panel: &[Fours],
            x: [*const i8; N],
            _: [i32; N],
        ) -> [[i32; LANES]; N] {
            let mut dots = [[0; LANES]; N];
            // SAFETY: fours are in the panel and in the rows, which the caller ensures; loads and stores need no alignment.
            unsafe {
                let (zero, ones) = (_mm256_set1_epi8(ZERO as i8), _mm256_set1_epi16(1));
                for part in 0..LANES / 8 {
                    let mut sums = [_mm256_setzero_si256(); N];
                    for (k, fours) in panel.iter().enumerate() {
                        let w = _mm256_loadu_si256(fours.as_ptr().cast::<__m256i>().add(part));
                        // 128 less, as a signed byte.
                        let w = _mm256_xor_si256(w, zero);
                        let size = _mm256_abs_epi8(w);
                        for n in 0..N {
                            let x = x[n].add(4 * k).cast::<i32>().read_unaligned();
                            let x = _mm256_sign_epi8(_mm256_set1_epi32(x), w);
                            // Two products are at most 2·128·127, which fits 16 bits.
                            let pairs = _mm256_maddubs_epi16(size, x);
                            sums[n] = _mm256_add_epi32(sums[n], _mm256_madd_epi16(pairs, ones));
                        }
                    }
                    for (dots, sums) in dots.iter_mut().zip(sums) {
                        let to = dots.as_mut_ptr().add(8 * part);
                        _mm256_storeu_si256(to.cast(), sums);
                    }
                }
            }
            dots
        }

        #[inline(always)]
        unsafe fn row_dots<const N: usize>(
            weights: [&[u8]; TOGETHER],
            x: [&[i8]; N],
            _: [i32; N],
        ) -> [[i32; TOGETHER]; N] {
            let cols = weights[0].len();
            assert!(weights.iter().all(|row| row.len() >= cols));
            assert!(x.iter().all(|row| row.len() >= cols));
            let whole = cols / 32 * 32;
            let mut dots = [[0; TOGETHER]; N];
            // SAFETY: the columns are in all rows, as was just checked; loads and stores need no alignment.
            unsafe {
                let (zero, ones) = (_mm256_set1_epi8(ZERO as i8), _mm256_set1_epi16(1));
                let mut all = [[_mm256_setzero_si256(); TOGETHER]; N];
                for col in (0..whole).step_by(32) {
                    let x: [__m256i; N] =
                        std::array::from_fn(|n| _mm256_loadu_si256(x[n].as_ptr().add(col).cast()));
                    for i in 0..TOGETHER {
                        let w = _mm256_loadu_si256(weights[i].as_ptr().add(col).cast());
                        // 128 less, as a signed byte.
                        let w = _mm256_xor_si256(w, zero);
                        let size = _mm256_abs_epi8(w);
                        for n in 0..N {
                            // Two products are at most 2·128·127, which fits 16 bits.
                            let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x[n], w));
                            let fours = _mm256_madd_epi16(pairs, ones);
                            all[n][i] = _mm256_add_epi32(all[n][i], fours);
                        }
                    }
                }
                for n in 0..N {
                    _mm_storeu_si128(dots[n].as_mut_ptr().cast(), totals(all[n]));
                }
            }
            add_row_dots(weights, x, whole..cols, &mut dots);
            dots
        }
    }

    /// The sums of each vector.
    ///
    /// # Safety
    ///
    /// The processor has AVX2.
    #[inline(always)]
    unsafe fn totals(vectors: [__m256i; TOGETHER]) -> __m128i {
        // SAFETY: the instructions are there.
        unsafe {
            let [a, b, c, d] = vectors;
            let both = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            let (low, high) = (
                _mm256_castsi256_si128(both),
                _mm256_extracti128_si256(both, 1),
            );
            _mm_add_epi32(low, high)
        }
    }

    impl Instructions for Vnni {
        const EIGHT_ROWS: bool = true;

        #[inline(always)]
        unsafe fn put_rows(rows: &[&[u8]; LANES], panel: &mut [Fours]) {
            // SAFETY: as for this function.
            unsafe { Avx2::put_rows(rows, panel) }
        }

        #[inline(always)]
        unsafe fn put_columns(rows: [&[u8]; 4], out: &mut Fours) {
            // SAFETY: as for this function.
            unsafe { Avx2::put_columns(rows, out) }
        }

        #[inline(always)]
        unsafe fn dots<const N: usize>(
            panel: &[Fours],
            x: [*const i8; N],
            sums: [i32; N],
        ) -> [[i32; LANES]; N] {
            let mut dots = [[0; LANES]; N];
            // SAFETY: fours are in the panel and in the rows, which the caller ensures; loads and stores need no alignment.
            unsafe {
                // Σ level·q = Σ level·(q − 128) + 128·Σ level
                let mut all = [[_mm512_setzero_si512(); 2]; N];
                for n in 0..N {
                    all[n] = [_mm512_set1_epi32(-i32::from(ZERO) * sums[n]); 2];
                }
                for (k, fours) in panel.iter().enumerate() {
                    let w = fours.as_ptr().cast::<__m512i>();
                    let w = [_mm512_loadu_si512(w), _mm512_loadu_si512(w.add(1))];
                    for n in 0..N {
                        let x = x[n].add(4 * k).cast::<i32>().read_unaligned();
                        let x = _mm512_set1_epi32(x);
                        all[n][0] = _mm512_dpbusd_epi32(all[n][0], w[0], x);
                        all[n][1] = _mm512_dpbusd_epi32(all[n][1], w[1], x);
                    }
                }
                for n in 0..N {
                    let to = dots[n].as_mut_ptr().cast::<__m512i>();
                    _mm512_storeu_si512(to, all[n][0]);
                    _mm512_storeu_si512(to.add(1), all[n][1]);
                }
            }
            dots
        }

        #[inline(always)]
        unsafe fn row_dots<const N: usize>(
            weights: [&[u8]; TOGETHER],
            x: [&[i8]; N],
            sums: [i32; N],
        ) -> [[i32; TOGETHER]; N] {
            let cols = weights[0].len();
            assert!(weights.iter().all(|row| row.len() >= cols));
            assert!(x.iter().all(|row| row.len() >= cols));
            let mut dots = [[0; TOGETHER]; N];
            // SAFETY: the columns are in all rows, as was just checked, and masks leave out what is behind them; loads and stores
            // need no alignment.
            unsafe {
                let mut all = [[_mm512_setzero_si512(); TOGETHER]; N];
                for col in (0..cols).step_by(64) {
                    let mask = match cols - col {
                        64.. => u64::MAX,
                        left => (1 << left) - 1,
                    };
                    let x: [__m512i; N] = std::array::from_fn(|n| {
                        _mm512_maskz_loadu_epi8(mask, x[n].as_ptr().add(col))
                    });
                    for i in 0..TOGETHER {
                        let w = weights[i].as_ptr().add(col).cast();
                        let w = _mm512_maskz_loadu_epi8(mask, w);
                        for n in 0..N {
                            all[n][i] = _mm512_dpbusd_epi32(all[n][i], w, x[n]);
                        }
                    }
                }
                for n in 0..N {
                    let halves = all[n].map(|all| {
                        _mm256_add_epi32(
                            _mm512_castsi512_si256(all),
                            _mm512_extracti64x4_epi64(all, 1),
                        )
                    });
                    // Σ level·q = Σ level·(q − 128) + 128·Σ level
                    let less = _mm_set1_epi32(i32::from(ZERO) * sums[n]);
                    let totals = _mm_sub_epi32(totals(halves), less);
                    _mm_storeu_si128(dots[n].as_mut_ptr().cast(), totals);
                }
            }
            dots
        }
    }
}

/// A panel and where its products are written.
pub(super) struct Tile<'a> {
    pub(super) panel: &'a [Fours],
    /// The factor of each line.
    pub(super) scales: [f32; LANES],
    /// The first line, a column of the output.
    pub(super) first: usize,
    /// The number of lines.
    pub(super) lanes: usize,
}

impl Tile<'_> {
    /// Writes the products with the rows `row..row + N` of the input.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and no other thread writes to these columns and rows of the output.
    #[inline(always)]
    pub(super) unsafe fn times<I: Instructions, const N: usize>(
        &self,
        x: &Inputs,
        row: usize,
        out: &Columns<'_>,
    ) {
        assert!(row + N <= x.rows() && self.panel.len() == x.fours());
        let (mut levels, mut sums) = ([std::ptr::null(); N], [0; N]);
        for n in 0..N {
            levels[n] = x.levels(row + n).as_ptr();
            sums[n] = x.sum(row + n);
        }
        // SAFETY: rows have as many levels as the panel, as was just checked.
        let dots = unsafe { I::dots(self.panel, levels, sums) };
        for (n, dots) in dots.iter().enumerate() {
            let beside = self.outliers(x, row + n);
            let numbers = finished(dots, x.scale(row + n), &beside, &self.scales);
            // SAFETY: these places are the caller's alone.
            unsafe { out.write(row + n, self.first, &numbers[..self.lanes]) };
        }
    }

    /// The sums of `number·(q − 128)` over the outliers of a row.
    #[inline(always)]
    fn outliers(&self, x: &Inputs, row: usize) -> [f32; LANES] {
        let mut sums = [0.0; LANES];
        for outlier in x.outliers(row) {
            let shift = 8 * (outlier.col % 4);
            let fours = &self.panel[outlier.col / 4];
            for (sum, four) in sums.iter_mut().zip(fours) {
                let q = u32::from_le_bytes(*four) >> shift & 255;
                *sum += outlier.number * (q as i32 - i32::from(ZERO)) as f32;
            }
        }
        sums
    }
}
