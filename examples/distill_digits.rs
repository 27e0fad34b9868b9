//! Distillation without language: a wide multilayer perceptron reads noisy digits, and a narrow one learns from it.
//!
//! ```sh
//! cargo run --release --example distill_digits
//! ```
//!
//! Digits are drawn from a bitmap font at random places, with strokes that fade and noise on every pixel. The teacher learns from
//! many labelled pictures, the student from few. Three students begin with the same weights: one has the labels alone, one the
//! teacher's distributions beside them, and one the teacher's distributions of pictures without labels. All are tested on other
//! pictures, with several seeds; differences have 95% intervals (paired t).

use anyhow::{Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::burn::optim::GradientsParams;
use ft::burn::tensor::{Device, Int, Tensor, TensorData, activation};
use ft::core::{Layout, Linear, mix_seed};
use ft::distill::loss::soft_targets;
use ft::train::{OptimizerStates, TrainConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[path = "shared/students.rs"]
mod students;
use students::{ALONE, ALONE_AT_BEST, TEACHER};

/// Distillation of a classifier of digits.
#[derive(Parser)]
struct Args {
    /// Labelled pictures of the teacher.
    #[arg(long, default_value_t = 6000)]
    teacher_pictures: usize,
    /// Labelled pictures of the students.
    #[arg(long, default_value_t = 300)]
    student_pictures: usize,
    /// Width of the teacher's hidden layer.
    #[arg(long, default_value_t = 256)]
    teacher_width: usize,
    /// Width of the students' hidden layer.
    #[arg(long, default_value_t = 24)]
    student_width: usize,
    /// The temperature of both distributions.
    #[arg(long, default_value_t = 3.0)]
    temperature: f64,
    /// The weight of the teacher, beside that of the labels.
    #[arg(long, default_value_t = 0.9)]
    alpha: f64,
    /// Optimizer steps of each model.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// How often all is done, with other pictures and weights.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

const SIDE: usize = 14;
const BATCH: usize = 64;

/// Ten digits of 5 × 7 points, a line of each in five bits.
const FONT: [[u8; 7]; 10] = [
    [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
    [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
    [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
    [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
    [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
    [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
    [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
    [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
    [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
    [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
];

/// Pictures, and the digits on them.
struct Pictures {
    pixels: Vec<f32>,
    digits: Vec<i64>,
}

impl Pictures {
    fn draw(count: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut pixels, mut digits) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let digit = rng.random_range(0..10usize);
            let (x0, y0) = (rng.random_range(3..6usize), rng.random_range(3..5usize));
            let slant = rng.random_range(-0.3..0.3f32);
            let mut picture = vec![0.0f32; SIDE * SIDE];
            for (y, line) in FONT[digit].iter().enumerate() {
                let shift = (slant * (3.0 - y as f32)).round() as isize;
                for x in (0..5).filter(|x| line >> (4 - x) & 1 == 1) {
                    let x = (x0 + x).saturating_add_signed(shift).min(SIDE - 1);
                    picture[(y0 + y) * SIDE + x] = rng.random_range(0.3..1.3);
                }
            }
            // Box and Muller's method.
            let mut normal = || {
                let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
                radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
            };
            pixels.extend(picture.iter().map(|pixel| pixel + 0.25 * normal()));
            digits.push(digit as i64);
        }
        Self { pixels, digits }
    }

    fn len(&self) -> usize {
        self.digits.len()
    }

    /// Some of them: `[pictures, pixels]`, and the digits.
    fn some(&self, which: &[usize], device: &Device) -> (Tensor<2>, Vec<i64>) {
        let size = SIDE * SIDE;
        let pixels = which
            .iter()
            .flat_map(|&i| &self.pixels[i * size..(i + 1) * size]);
        let data = TensorData::new(pixels.copied().collect::<Vec<f32>>(), [which.len(), size]);
        let digits = which.iter().map(|&i| self.digits[i]).collect();
        (Tensor::from_data(data, device), digits)
    }
}

/// A multilayer perceptron with one hidden layer.
#[derive(Module, Debug)]
struct Perceptron {
    hidden: Linear,
    output: Linear,
}

impl Perceptron {
    fn new(width: usize, device: &Device) -> Self {
        let layer = |inputs: usize, outputs: usize| {
            let std = (2.0 / inputs as f64).sqrt();
            Linear::new(inputs, outputs, true, Layout::OutIn, std, device)
        };
        Self {
            hidden: layer(SIDE * SIDE, width),
            output: layer(width, 10),
        }
    }

    /// Logits, `[pictures, 10]`.
    fn forward(&self, pictures: Tensor<2>) -> Tensor<2> {
        let hidden = activation::relu(self.hidden.forward(pictures.unsqueeze::<3>()));
        self.output.forward(hidden).squeeze_dim(0)
    }

    fn parameters(&self) -> usize {
        let shapes = ft::core::module_path::shapes(self);
        shapes.iter().map(|(_, shape)| shape.num_elements()).sum()
    }

    fn accuracy(&self, pictures: &Pictures, device: &Device) -> f64 {
        let all: Vec<usize> = (0..pictures.len()).collect();
        let (pixels, digits) = pictures.some(&all, device);
        let found = self.forward(pixels).argmax(1).into_data();
        let right = found.iter::<i64>().zip(&digits).filter(|(a, b)| a == *b);
        right.count() as f64 / digits.len() as f64
    }
}

/// What a model learns from.
struct Lesson<'a> {
    pictures: &'a Pictures,
    /// The teacher, its weight, and the temperature.
    teacher: Option<(&'a Perceptron, f64, f64)>,
}

fn train(
    mut model: Perceptron,
    lesson: &Lesson<'_>,
    steps: usize,
    seed: u64,
    device: &Device,
    mut at_tenths: impl FnMut(&Perceptron),
) -> Perceptron {
    let mut optimizer = OptimizerStates::adamw(&TrainConfig {
        weight_decay: 1e-4,
        ..TrainConfig::default()
    });
    let mut rng = StdRng::seed_from_u64(seed);
    for step in 0..steps {
        let which: Vec<usize> = (0..BATCH)
            .map(|_| rng.random_range(0..lesson.pictures.len()))
            .collect();
        let (pixels, digits) = lesson.pictures.some(&which, device);
        let logits = model.forward(pixels.clone());
        let index = Tensor::<1, Int>::from_data(digits.as_slice(), device).unsqueeze_dim::<2>(1);
        let of_labels = -activation::log_softmax(logits.clone(), 1)
            .gather(1, index)
            .squeeze_dim::<1>(1);
        let losses = match lesson.teacher {
            None => of_labels,
            Some((teacher, alpha, temperature)) => {
                let said = teacher.forward(pixels.inner());
                let said = Tensor::from_inner(said);
                soft_targets(logits, said, temperature) * alpha + of_labels * (1.0 - alpha)
            }
        };
        let gradients = GradientsParams::from_grads(losses.sum().backward(), &model);
        let rate = 3e-3 * (1.0 - step as f64 / steps as f64);
        model = optimizer.step(model, gradients, rate, 1.0 / BATCH as f64);
        if step + 1 == steps || (step + 1).is_multiple_of(steps.div_ceil(10)) {
            at_tenths(&model);
        }
    }
    model
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(
        args.seeds >= 2,
        "--seeds must be 2 or more: intervals need several"
    );
    let device = ft::device("cpu")?.autodiff();
    let plain = ft::device("cpu")?;
    let names = [
        "teacher",
        "labels alone",
        "labels alone, at its best",
        "teacher and labels",
        "teacher, no labels",
    ];
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    let mut sizes = [0; 2];
    for seed in 0..args.seeds {
        let part = |part: u64| mix_seed(seed, part);
        let many = Pictures::draw(args.teacher_pictures, part(0));
        let few = Pictures::draw(args.student_pictures, part(1));
        let unseen = Pictures::draw(4000, part(2));
        device.seed(part(3));
        let teacher = Perceptron::new(args.teacher_width, &device);
        let lesson = Lesson {
            pictures: &many,
            teacher: None,
        };
        let teacher = train(teacher, &lesson, args.steps, part(4), &device, |_| {}).valid();
        device.seed(part(5));
        let student = Perceptron::new(args.student_width, &device);
        // Its weights are drawn now, so that all students begin with the same.
        ft::core::module_path::draw(&student);
        sizes = [teacher.parameters(), student.parameters()];
        let trained = |pictures, alpha: Option<f64>, at_tenths: &mut dyn FnMut(f64)| {
            let teacher = alpha.map(|alpha| (&teacher, alpha, args.temperature));
            let lesson = Lesson { pictures, teacher };
            let mut last = 0.0;
            let start = student.clone();
            train(start, &lesson, args.steps, part(6), &device, |model| {
                last = model.valid().accuracy(&unseen, &plain);
                at_tenths(last);
            });
            last
        };
        found[TEACHER].push(teacher.accuracy(&unseen, &plain));
        let mut best = 0.0f64;
        found[ALONE].push(trained(&few, None, &mut |accuracy| {
            best = best.max(accuracy);
        }));
        found[ALONE_AT_BEST].push(best);
        found[ALONE_AT_BEST + 1].push(trained(&few, Some(args.alpha), &mut |_| {}));
        found[ALONE_AT_BEST + 2].push(trained(&many, Some(1.0), &mut |_| {}));
        let last: Vec<String> = found
            .iter()
            .filter_map(|all| all.last())
            .map(|accuracy| format!("{:.1}%", 100.0 * accuracy))
            .collect();
        eprintln!("seed {seed}: {} of unseen pictures right", last.join(", "));
    }
    println!(
        "teacher: {} parameters, {} labelled pictures; students: {} parameters, {} labelled pictures",
        sizes[0], args.teacher_pictures, sizes[1], args.student_pictures
    );
    let mut line = students::report(&names, &found)?;
    if args.json {
        line.insert("parameters_teacher".into(), sizes[0].into());
        line.insert("parameters_student".into(), sizes[1].into());
        line.insert("peak_rss_mb".into(), ft::peak_rss_mb().into());
        println!("{}", serde_json::Value::Object(line));
    }
    Ok(())
}
