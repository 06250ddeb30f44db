//! An issuer of tokens: its key set on a free loopback port, and how often it was asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

/// *ring* makes no RSA keys, so this one is in the repository, and good for tests only.
const RSA: &str = include_str!("../../crates/jwt/src/testing/rsa.json");

/// Base64url, as tokens are written in.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since the epoch.
pub fn seconds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "an issuer has no other clock than its system's")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// An issuer with a key for each algorithm, named by it.
pub struct Issuer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    /// Starts one, on a thread of its own.
    pub fn start() -> Self {
        let (rsa, p256, ed25519) = (rsa(), p256(), ed25519());
        let public: Value = serde_json::from_str(RSA).unwrap();
        let point = p256.public_key().as_ref();
        let set = json!({ "keys": [
            { "kid": "RS256", "kty": "RSA", "use": "sig", "n": public["n"], "e": public["e"] },
            { "kid": "ES256", "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) },
            { "kid": "EdDSA", "kty": "OKP", "crv": "Ed25519", "x": encode(ed25519.public_key().as_ref()) },
        ] })
        .to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let keys = get(async move || {
            counted.fetch_add(1, Ordering::Relaxed);
            set
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, Router::new().route("/keys", keys)).await.unwrap();
            });
        });
        Self { address, asked, rsa, p256, ed25519 }
    }

    /// What its tokens call it.
    pub fn name(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Where its keys are.
    pub fn keys(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// How often they were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Claims for a user that are good for five minutes.
    pub fn claims(&self, user: &str) -> Value {
        json!({ "iss": self.name(), "aud": "enigma", "sub": user, "exp": seconds() + 300 })
    }

    /// A token of these claims.
    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.token_with(algorithm, &json!({ "alg": algorithm, "kid": algorithm, "typ": "JWT" }), claims)
    }

    /// A token with any header, signed by the key for `algorithm`.
    pub fn token_with(&self, algorithm: &str, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
            "ES256" => self.p256.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            other => panic!("no key for {other}"),
        };
        format!("{message}.{}", encode(signature))
    }
}

fn rsa() -> RsaKeyPair {
    let key: Value = serde_json::from_str(RSA).unwrap();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: part("n"), e: part("e") },
        d: part("d"),
        p: part("p"),
        q: part("q"),
        dP: part("dp"),
        dQ: part("dq"),
        qInv: part("qi"),
    };
    RsaKeyPair::from_components(&components).unwrap()
}

fn p256() -> EcdsaKeyPair {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}

fn ed25519() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}
