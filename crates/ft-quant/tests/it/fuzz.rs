//! Damaged files: what is read from outside gives an error or a model, and never a panic, a hang or an allocation that has nothing
//! to do with the size of the file.
//!
//! The test runs a few hundred cases from a fixed seed. `FT_FUZZ_MINUTES=10 cargo test -p ft-quant --test it damaged_files --
//! --nocapture` runs as long as that, from a seed that it prints (`FT_FUZZ_SEED` sets it). A failure names its case, and
//! `FT_FUZZ_CASE` runs that case alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use ft_core::gguf::GgufModel;
use ft_core::{
    AutoCausalLm, GenerationConfig, ModelConfig, Tokenizer, WeightSource, Weights, mix_seed,
    open_weights, split_mix,
};
use ft_quant::{GgufOptions, Mix, write_gguf};

/// The largest allocation that a thread has asked for.
struct Largest;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: all is left to the system's allocator; a number in a cell is set besides.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

/// Seconds that a case may take.
const LONGEST: u64 = 60;

/// The bytes that may be allocated at once for files of this size.
fn limit(size: usize) -> usize {
    (8 << 20) + 64 * size
}

/// A sequence of numbers.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split_mix(self.0)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    7,
    255,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    1 << 63,
    u64::MAX,
];

/// Bytes with one to four changes, most of them among the first `header` bytes.
fn damage(bytes: &mut Vec<u8>, header: usize, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let range = match dice.below(8) {
            0 => bytes.len(),
            _ => header.min(bytes.len()),
        };
        let at = dice.below(range);
        match dice.below(7) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = dice.next() as u8;
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
            2 => bytes.truncate(at),
            3 => {
                // Digits of JSON texts become others.
                let digits = bytes[at..].iter().position(u8::is_ascii_digit);
                if let Some(place) = digits.map(|place| at + place) {
                    bytes[place] = b'0' + dice.below(10) as u8;
                    if dice.below(3) == 0 {
                        let more = dice.pick(&NUMBERS).to_string();
                        bytes.splice(place..place, more.into_bytes());
                    }
                }
            }
            4 => {
                let end = (at + dice.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = dice.below(range);
                let stop = (to + part.len()).min(bytes.len());
                bytes.splice(to.min(stop)..stop, part);
            }
            width => {
                let number = *dice.pick(&NUMBERS);
                let size = if width == 5 { 4 } else { 8 };
                let end = (at + size).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
}

/// A file or a folder that is whole.
struct Whole {
    path: PathBuf,
    /// Names and bytes of its files, and how many of these are a header.
    files: Vec<(String, Vec<u8>, usize)>,
}

impl Whole {
    fn folder(path: PathBuf) -> Self {
        let names = ["config.json", "model.safetensors"];
        let files = names.map(|name| {
            let bytes = std::fs::read(path.join(name)).unwrap();
            let header = match name {
                "config.json" => bytes.len(),
                _ => 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize,
            };
            (name.to_string(), bytes, header)
        });
        Self {
            path,
            files: files.to_vec(),
        }
    }

    fn size(&self) -> usize {
        self.files.iter().map(|(_, bytes, _)| bytes.len()).sum()
    }

    /// Writes a damaged copy, and returns what to open.
    fn damaged(&self, folder: &Path, dice: &mut Dice) -> PathBuf {
        let chosen = dice.below(self.files.len());
        for (i, (name, bytes, header)) in self.files.iter().enumerate() {
            let mut bytes = bytes.clone();
            if i == chosen {
                damage(&mut bytes, *header, dice);
            }
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        match self.files.as_slice() {
            [(name, ..)] => folder.join(name),
            _ => folder.to_path_buf(),
        }
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/packed")
        .join(name)
}

/// GGUF files of small models, and folders of all layouts.
fn whole(folder: &Path) -> Vec<Whole> {
    let mut all: Vec<Whole> = [
        "gptq",
        "gptq_desc_act",
        "gptq_3",
        "awq",
        "nf4_nested",
        "bnb_8",
        "hqq_3",
        "pack_quantized",
    ]
    .map(|name| Whole::folder(golden(name)))
    .into();
    for (name, mix) in [
        ("llama3_rope", Mix::F16),
        ("gemma", Mix::Q8_0),
        ("phi3", Mix::Q4_K_M),
    ] {
        let device = Device::default();
        let model = crate::gguf::model_of(name, &device);
        let path = folder.join(format!("{name}.gguf"));
        let weights = ft_quant::ModelWeights::new(&model).unwrap();
        let config = model.config().to_json();
        let tokenizer = crate::gguf::tokenizer();
        write_gguf(&weights, &config, &tokenizer, &path, &GgufOptions::new(mix)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = ft_core::gguf::GgufFile::open(&path).unwrap();
        let data: usize = file.tensors().iter().map(|tensor| tensor.bytes).sum();
        let header = bytes.len() - data;
        all.push(Whole {
            path: path.clone(),
            files: vec![(format!("{name}.gguf"), bytes, header)],
        });
    }
    all
}

/// Reads everything that there is in a file or folder.
fn read(path: &Path) -> ft_core::Result<()> {
    let all = |weights: &dyn WeightSource| {
        for name in weights.names() {
            let _ = weights.shape(name);
            let _ = weights.blocks(name);
            let _ = weights.stored(name);
            let _ = weights.widened(name);
        }
    };
    if path.is_file() {
        let model = GgufModel::open(path)?;
        let _ = model.end_tokens();
        let tokenizer = Tokenizer::from_pretrained(path);
        if let Ok(tokenizer) = &tokenizer {
            let _ = tokenizer.encode("A kite is a toy. 日本", true);
        }
        let _ = GenerationConfig::from_pretrained(path, tokenizer.as_ref().ok());
    }
    all(&*open_weights(path)?);
    ModelConfig::from_pretrained(path)?;
    AutoCausalLm::from_pretrained_with(path, &Device::default(), Weights::Stored)?;
    Ok(())
}

#[test]
fn damaged_files_give_errors() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a whole number"))
    };
    let minutes = number("FT_FUZZ_MINUTES");
    let now = || {
        std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_secs())
    };
    let seed = number("FT_FUZZ_SEED").unwrap_or_else(|| minutes.map_or(1, |_| now()));
    let only = number("FT_FUZZ_CASE");
    let folder = tempfile::tempdir().unwrap();
    let whole = whole(folder.path());
    for one in &whole {
        read(&one.path).unwrap_or_else(|error| panic!("{}: {error}", one.path.display()));
    }
    let start = Instant::now();
    // The case, and the second in which it began; a thread of its own ends a run that hangs.
    let running = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let seen = running.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            let (case, since) = (&seen.0, &seen.1);
            let since = since.load(Ordering::Relaxed);
            if since != u64::MAX && start.elapsed().as_secs() > since + LONGEST {
                let case = case.load(Ordering::Relaxed);
                eprintln!("seed {seed}, case {case} hangs");
                std::process::abort();
            }
        }
    });
    let (mut cases, mut accepted, mut failures) = (0u64, 0u64, Vec::new());
    for case in only.unwrap_or(0).. {
        let done = match (only, minutes) {
            (Some(only), _) => case > only,
            (None, Some(minutes)) => start.elapsed().as_secs() >= minutes * 60,
            (None, None) => case >= 400,
        };
        if done || failures.len() >= 10 {
            break;
        }
        running.0.store(case, Ordering::Relaxed);
        running
            .1
            .store(start.elapsed().as_secs(), Ordering::Relaxed);
        let mut dice = Dice(mix_seed(seed, case));
        let one = dice.pick(&whole);
        let temporary = tempfile::tempdir().unwrap();
        let path = one.damaged(temporary.path(), &mut dice);
        LARGEST.set(0);
        let result = catch_unwind(AssertUnwindSafe(|| read(&path)));
        let name = one.path.file_name().unwrap_or_default().to_string_lossy();
        if LARGEST.get() > limit(one.size()) {
            let (largest, size) = (LARGEST.get(), one.size());
            failures.push(format!(
                "case {case}: {name} of {size} bytes allocates {largest} at once"
            ));
        }
        match result {
            Ok(Ok(())) => accepted += 1,
            Ok(Err(_)) => {}
            Err(panic) => {
                let text = (panic.downcast_ref::<String>().cloned())
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
                failures.push(format!(
                    "case {case}: {name} panics: {}",
                    text.unwrap_or_default()
                ));
            }
        }
        cases += 1;
    }
    running.1.store(u64::MAX, Ordering::Relaxed);
    println!("seed {seed}: {cases} cases, {accepted} of them read without an error");
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
}
