//! t-SNE against scikit-learn's exact method; the golden file is made by `golden/tsne.py`.

use ft_embed::{Embeddings, TsneConfig, tsne};

use crate::models::json;

const COUNT: usize = 150;
const DIMS: usize = 8;
const NEIGHBOURS: usize = 10;

fn points() -> Embeddings {
    let number = |i: usize, j: usize| {
        let (group, i, j) = ((i % 5) as f64, i as f64, j as f64);
        let centre = 2.0 * (3.0 * group + 1.7 * j).sin();
        centre + (0.2 + 0.1 * group) * (0.37 * (i + 1.0) * (j + 2.0) + j * j).sin()
    };
    let values = (0..COUNT).flat_map(|i| (0..DIMS).map(move |j| number(i, j) as f32));
    Embeddings::new(values.collect(), DIMS).expect("rows")
}

/// The numbers of all points by their distance to one, the nearest first, itself left out.
fn by_distance(own: usize, distance: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let mut others: Vec<usize> = (0..COUNT).filter(|&other| other != own).collect();
    others.sort_by(|&a, &b| distance(own, a).total_cmp(&distance(own, b)));
    others
}

/// How rarely a neighbour in the plane is far away in truth (Venna and Kaski, 2001).
fn trustworthiness(data: &Embeddings, plane: &[[f64; 2]]) -> f64 {
    let truth = |a: usize, b: usize| -> f64 {
        let pairs = data.row(a).iter().zip(data.row(b));
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    let shown = |a: usize, b: usize| {
        let (a, b) = (plane[a], plane[b]);
        (a[0] - b[0]).hypot(a[1] - b[1])
    };
    let mut penalty = 0;
    for own in 0..COUNT {
        let truth = by_distance(own, truth);
        for neighbour in &by_distance(own, shown)[..NEIGHBOURS] {
            let rank = 1 + truth
                .iter()
                .position(|other| other == neighbour)
                .expect("a point");
            penalty += rank.saturating_sub(NEIGHBOURS);
        }
    }
    let (n, k) = (COUNT as f64, NEIGHBOURS as f64);
    1.0 - penalty as f64 * 2.0 / (n * k * (2.0 * n - 3.0 * k - 1.0))
}

#[test]
fn points_are_as_near_to_the_truth_as_those_of_scikit_learn() {
    let golden = json("tsne.json");
    let number = |key: &str| golden[key].as_f64().expect("a number");
    let data = points();
    for (own, other) in data
        .row(0)
        .iter()
        .zip(golden["first"].as_array().expect("a row"))
    {
        assert!((f64::from(*own) - other.as_f64().expect("a number")).abs() < 1e-6);
    }
    let config = TsneConfig {
        perplexity: number("perplexity"),
        ..TsneConfig::default()
    };
    let found = tsne(&data, &config).expect("points");
    let kl = (found.kl_divergence, number("kl_divergence"));
    assert!((kl.0 - kl.1).abs() < 0.02 * kl.1, "{kl:?}");
    let trust = (
        trustworthiness(&data, &found.points),
        number("trustworthiness"),
    );
    assert!(trust.0 > trust.1 - 0.005, "{trust:?}");
    assert_eq!(tsne(&data, &config).expect("points"), found);
}
