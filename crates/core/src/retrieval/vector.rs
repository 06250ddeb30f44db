//! How near vectors are to each other.

/// The cosine of the angle between two vectors of length 1 and of the same dimensions. It does not depend on anything but the two:
/// the same vectors have the same cosine, to the last digit, wherever it is computed.
pub fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let sum: f64 = one.iter().zip(other).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum();
    sum.clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_for_the_same_and_zero_across() {
        let vector = [0.6, 0.8, 0.0];
        assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-7);
        assert!(cosine(&vector, &[0.0, 0.0, 1.0]).abs() < 1e-12);
        assert!((cosine(&vector, &vector.map(|x| -x)) + 1.0).abs() < 1e-7);
    }
}
