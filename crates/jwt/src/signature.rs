//! Signatures. The one place that knows which library checks them.

use enigma_core::token::TokenAlgorithm;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// A public key, and so the one algorithm that it is good for: no token can have it used for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// For RS256: modulus and exponent, big-endian and without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// For ES256: an uncompressed point.
    P256(Vec<u8>),
    /// For `EdDSA`.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    pub(crate) fn algorithm(&self) -> TokenAlgorithm {
        match self {
            Self::Rsa { .. } => TokenAlgorithm::Rs256,
            Self::P256(_) => TokenAlgorithm::Es256,
            Self::Ed25519(_) => TokenAlgorithm::EdDsa,
        }
    }

    /// Whether `signature` is this key's of `message`. A key that is none has signed nothing.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Signer;
    use crate::token::decode;

    fn signed(token: &str) -> (Vec<u8>, Vec<u8>) {
        let (message, signature) = token.rsplit_once('.').unwrap();
        (message.as_bytes().to_vec(), decode(signature).unwrap())
    }

    fn holds(key: &PublicKey, token: &str) {
        let (message, mut signature) = signed(token);
        assert!(key.has_signed(&message, &signature));
        assert!(!key.has_signed(b"something else", &signature));
        signature[10] ^= 1;
        assert!(!key.has_signed(&message, &signature));
        assert!(!key.has_signed(&message, &signature[..20]) && !key.has_signed(&message, &[]));
    }

    /// The examples of RFC 7515 (appendix A.3) and RFC 8037 (appendix A.4).
    #[test]
    fn published_examples_hold() {
        let x = decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap();
        let y = decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap();
        holds(
            &PublicKey::P256([vec![4], x, y].concat()),
            "eyJhbGciOiJFUzI1NiJ9\
             .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
             .DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        );
        holds(
            &PublicKey::Ed25519(decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap()),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc\
             .hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        );
    }

    #[test]
    fn a_key_that_is_none_has_signed_nothing() {
        let signature = Signer::ed25519().sign(b"message");
        for key in [
            PublicKey::Rsa { modulus: vec![], exponent: vec![] },
            PublicKey::Rsa { modulus: vec![0xff; 256], exponent: vec![1] },
            PublicKey::P256(vec![4; 65]),
            PublicKey::P256(vec![0]),
            PublicKey::Ed25519(vec![0; 31]),
        ] {
            assert!(!key.has_signed(b"message", &signature), "{key:?}");
        }
    }
}
