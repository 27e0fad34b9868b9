//! The speed of search: 1,000 queries and one query over 100,000 documents of 384 dimensions; prints a table.
//!
//! A query alone reads all documents once, so its limit is memory. Many queries share what is read, so their limit is that of
//! products. `read` is the speed at which the sum of the same numbers is taken, on all threads.
//!
//! ```sh
//! cargo bench --bench search
//! ```

use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use ft::embed::quantize::Ranges;
use ft::embed::{BinaryIndex, Embeddings, ExactIndex, Hit, Int8Index, VectorIndex};
use rand::{Rng, SeedableRng, rngs::StdRng};

#[path = "shared/sum.rs"]
mod sum;
use sum::sum;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 100_000)]
    documents: usize,
    #[arg(long, default_value_t = 1000)]
    queries: usize,
    #[arg(long, default_value_t = 384)]
    dims: usize,
    #[arg(long, default_value_t = 10)]
    k: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(Some(args.threads));
    let mut random = StdRng::seed_from_u64(0);
    let mut some = |rows: usize| -> Result<Embeddings> {
        let values = (0..rows * args.dims).map(|_| random.random_range(-1.0f32..1.0));
        Ok(Embeddings::new(values.collect(), args.dims)?.normalized())
    };
    let (documents, queries, one) = (some(args.documents)?, some(args.queries)?, some(1)?);
    let values = documents.values();
    let bytes = size_of_val(values) as f64;

    let part = values.len().div_ceil(args.threads);
    let read = median(args.rounds, || {
        std::thread::scope(|scope| {
            let parts: Vec<_> = values
                .chunks(part)
                .map(|part| scope.spawn(|| sum(part)))
                .collect();
            let sums = parts
                .into_iter()
                .map(|part| part.join().unwrap_or(f32::NAN));
            std::hint::black_box(sums.sum::<f32>());
        });
        Ok(())
    })?;
    println!("read: {:.1} GB/s\n", bytes / read / 1e9);
    println!(
        "| | {} queries, s | queries/s | one query, ms | GB/s of documents in f32 | of the {} best |",
        args.queries, args.k
    );
    println!("|---|---|---|---|---|---|");
    let exact = ExactIndex::new(&documents)?;
    let mut int8 = Int8Index::new(Ranges::of(&documents)?);
    int8.add(&documents)?;
    let mut binary = BinaryIndex::new(args.dims, 4)?;
    binary.add(&documents)?;
    #[cfg_attr(not(feature = "approximate"), allow(unused_mut))]
    let mut indexes: Vec<(&str, &dyn VectorIndex)> =
        vec![("exact", &exact), ("int8", &int8), ("binary", &binary)];
    #[cfg(feature = "approximate")]
    let graph = {
        let settings = ft::embed::GraphSettings::default();
        let mut graph = ft::embed::ApproximateIndex::new(args.dims, settings)?;
        let start = Instant::now();
        graph.add(&documents)?;
        eprintln!("the graph took {:.0} s", start.elapsed().as_secs_f64());
        graph
    };
    #[cfg(feature = "approximate")]
    indexes.push(("graph", &graph));
    let best = exact.search(&queries, args.k)?;
    for (name, index) in indexes {
        let found = index.search(&queries, args.k)?;
        let both = best.iter().zip(&found).flat_map(|(best, found)| {
            let number = |hit: &Hit| hit.document;
            let found: Vec<usize> = found.iter().map(number).collect();
            best.iter()
                .map(number)
                .filter(move |document| found.contains(document))
        });
        let share = both.count() as f64 / (best.len() * args.k).max(1) as f64;
        let all = median(args.rounds, || index.search(&queries, args.k).map(drop))?;
        let single = median(args.rounds, || index.search(&one, args.k).map(drop))?;
        println!(
            "| {name} | {all:.3} | {:.0} | {:.2} | {:.1} | {share:.3} |",
            args.queries as f64 / all,
            single * 1e3,
            bytes / single / 1e9
        );
    }
    Ok(())
}

/// The median time of some rounds after one that is not counted, in seconds.
fn median(rounds: usize, mut run: impl FnMut() -> ft::embed::Result<()>) -> Result<f64> {
    run()?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
