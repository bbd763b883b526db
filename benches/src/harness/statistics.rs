/// The median of `values`, of which there is at least one.
pub fn median(values: &[f64]) -> f64 {
    at(values, 0.5)
}

/// The first and the third quartile.
pub fn quartiles(values: &[f64]) -> [f64; 2] {
    [at(values, 0.25), at(values, 0.75)]
}

/// The value that a `share` of the values is below, between two of them in proportion.
fn at(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quartiles(&[5.0, 4.0, 3.0, 2.0, 1.0]), [2.0, 4.0]);
        assert_eq!(quartiles(&[7.0]), [7.0, 7.0]);
    }
}
