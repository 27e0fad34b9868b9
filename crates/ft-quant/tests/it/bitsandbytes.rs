//! Nested magnitudes against bitsandbytes, from `golden/nested_absmax.py`.

use ft_quant::NestedAbsmax;
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("../golden/nested_absmax.safetensors");

fn bytes(name: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(FILE).expect("a file of safetensors");
    file.tensor(name).expect("is in the file").data().to_vec()
}

fn numbers(name: &str) -> Vec<f32> {
    let bytes = bytes(name);
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().map(|x| f32::from_le_bytes(*x)).collect()
}

#[test]
fn magnitudes_become_the_codes_of_bitsandbytes() {
    let found = NestedAbsmax::new(&numbers("absmax"));
    assert_eq!(found.nested.len(), 3);
    // PyTorch adds the mean in another order.
    let offset = numbers("offset")[0];
    assert!((found.offset / offset - 1.0).abs() < 1e-6);
    for (found, expected) in found.nested.iter().zip(numbers("nested")) {
        assert!((found / expected - 1.0).abs() < 1e-6);
    }
    // bitsandbytes finds one of the two nearest codes, not always the nearer one.
    let (codes, expected) = (&found.codes, bytes("codes"));
    let differences = codes.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert!(differences < 14, "{differences} of 700 codes");
    let numbers_of_codes = found.dequantize().into_iter().zip(numbers("numbers"));
    for ((found, theirs), absmax) in numbers_of_codes.zip(numbers("absmax")) {
        let (error, their_error) = ((found - absmax).abs(), (theirs - absmax).abs());
        // The mean, of about 1, has the rounding of f32.
        let close = error <= their_error + 1e-6;
        assert!(close, "{absmax}: {found}, {theirs}");
    }
}

#[test]
fn codes_of_bitsandbytes_are_decoded() {
    let stored = NestedAbsmax {
        codes: bytes("codes"),
        nested: numbers("nested"),
        offset: numbers("offset")[0],
        map: numbers("map"),
    };
    assert_eq!(stored.dequantize(), numbers("numbers"));
}
