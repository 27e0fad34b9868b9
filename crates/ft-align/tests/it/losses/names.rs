//! Losses by name, and settings that do not fit.

use ft_align::Error;
use ft_align::loss::*;

#[test]
fn names_are_read_as_they_are_written() {
    for loss in PairLoss::ALL {
        assert_eq!(loss.to_string().parse::<PairLoss>().unwrap(), loss);
    }
    for text in ["sigmoid", "sigmoid:0.8,bco_pair:0.2,sft:1", "ipo:0.5"] {
        assert_eq!(text.parse::<PairLosses>().unwrap().to_string(), text);
    }
    for text in [
        "reverse_kl",
        "forward_kl",
        "js_divergence",
        "alpha_divergence:0.5",
    ] {
        assert_eq!(text.parse::<FDivergence>().unwrap().to_string(), text);
    }
    assert_eq!(
        "alpha_divergence".parse::<FDivergence>().unwrap(),
        FDivergence::Alpha(0.5)
    );
    for text in ["group", "batch", "none"] {
        assert_eq!(text.parse::<Scaling>().unwrap().to_string(), text);
    }
}

#[test]
fn unknown_names_are_errors_that_list_the_known_ones() {
    let message = |text: &str| text.parse::<PairLosses>().unwrap_err().to_string();
    assert!(
        message("sigmod").contains("`sigmod`: use sigmoid, hinge, ipo"),
        "{}",
        message("sigmod")
    );
    assert!(message("").contains("no loss of pairs ``"));
    assert!(message("sigmoid:-1").contains("at least 0"));
    assert!(message("sigmoid:nan").contains("at least 0"));
    assert!(message("sft,sigmoid,sft:2").contains("named twice"));
    let message = |text: &str| text.parse::<FDivergence>().unwrap_err().to_string();
    assert!(message("kl").contains("use reverse_kl"));
    assert!(message("reverse_kl:2").contains("only alpha_divergence"));
    assert!(message("alpha_divergence:x").contains("finite number"));
    assert!("Group".parse::<Scaling>().is_err());
}

/// All mistakes at once, each with what to do.
#[test]
fn settings_that_do_not_fit_are_errors() {
    let losses: PairLosses = "exo_pair,robust,nca_pair,aot,discopop".parse().unwrap();
    let settings = PairSettings {
        beta: 0.0,
        label_smoothing: 0.5,
        discopop_tau: 0.0,
        f_divergence: FDivergence::Js,
    };
    let Err(Error::Settings(mistakes)) = losses.check(&settings, true) else {
        panic!("accepted");
    };
    let all = mistakes.join("\n");
    for part in [
        "the label_smoothing of robust",
        "the label_smoothing of exo_pair",
        "the beta of nca_pair",
        "discopop_tau must be positive",
        "nca_pair is not defined for the divergence js_divergence",
        "aot sorts the batch",
    ] {
        assert!(all.contains(part), "{part} is not in\n{all}");
    }
    let exo = PairLosses::from(PairLoss::ExoPair);
    let message = exo
        .check(&PairSettings::default(), false)
        .unwrap_err()
        .to_string();
    assert!(message.contains("use 0.001"), "{message}");
    for loss in PairLoss::ALL {
        let settings = PairSettings {
            label_smoothing: if loss.smooths_labels() { 0.01 } else { 0.0 },
            ..PairSettings::default()
        };
        PairLosses::from(loss).check(&settings, false).unwrap();
    }
}
