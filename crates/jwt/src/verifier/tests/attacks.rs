//! What people try.

use enigma_core::tenant::{Scope, ScopeSet};

use super::*;
use crate::testing::encode;
use crate::token::MAX_TOKEN_BYTES;

#[tokio::test]
async fn every_algorithm_works_and_names_the_user() {
    for signer in [Signer::rsa(), Signer::p256(), Signer::ed25519()] {
        let world = World::with(&[signer.public(Some("k"))]);
        let verified = world.verify(&acme(), &signer.token("k", &claims())).await.unwrap().unwrap();
        assert_eq!((verified.user.as_str(), verified.scopes), ("alice", ScopeSet::usual()));
        let unnamed = signer.token_with(&json!({ "alg": signer.algorithm() }), &claims());
        assert!(world.accepts(&unnamed).await, "where there is but one key, it need not be named");
    }
}

#[tokio::test]
async fn scopes_come_from_the_claim_that_the_tenant_names() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let tenant = tenant_with("acme", &json!({ "scopesClaim": "permissions" }));
    let mut claims = claims();
    claims["permissions"] = json!(["chat"]);
    claims["scope"] = json!("admin");
    let verified = world.verify(&tenant, &signer.token("k", &claims)).await.unwrap().unwrap();
    assert_eq!(verified.scopes, [Scope::Chat].into_iter().collect());
}

#[tokio::test]
async fn a_token_without_a_signature_is_none() {
    let signer = Signer::rsa();
    let world = World::with(&[signer.public(Some("k"))]);
    let body = encode(claims().to_string());
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(json!({ "alg": algorithm, "kid": "k" }).to_string());
        for signature in ["", "AAAA"] {
            assert!(!world.accepts(&format!("{header}.{body}.{signature}")).await, "{algorithm}");
        }
    }
    let header = encode(json!({ "alg": "RS256", "kid": "k" }).to_string());
    assert!(!world.accepts(&format!("{header}.{body}.")).await);
    let unnamed = encode(json!({ "kid": "k" }).to_string());
    assert!(!world.accepts(&format!("{unnamed}.{body}.AAAA")).await, "no algorithm is none");
}

/// A public key is no secret: whoever could use it as one would sign as they like.
#[tokio::test]
async fn a_public_key_is_never_used_as_a_secret() {
    use ring::hmac;
    let signer = Signer::rsa();
    let public = signer.public(Some("k"));
    let world = World::with(std::slice::from_ref(&public));
    for secret in [public.to_string(), public["n"].as_str().unwrap().to_owned(), String::new()] {
        for algorithm in ["HS256", "RS256"] {
            let header = json!({ "alg": algorithm, "kid": "k" });
            let message = format!("{}.{}", encode(header.to_string()), encode(claims().to_string()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
            assert!(!world.accepts(&format!("{message}.{}", encode(tag))).await, "{algorithm}");
        }
    }
}

#[tokio::test]
async fn a_key_is_used_for_its_own_algorithm_only() {
    let (rsa, ec, ed) = (Signer::rsa(), Signer::p256(), Signer::ed25519());
    let world = World::with(&[rsa.public(Some("rsa")), ec.public(Some("ec")), ed.public(Some("ed"))]);
    for signer in [&rsa, &ec, &ed] {
        for id in ["rsa", "ec", "ed"] {
            for algorithm in ["RS256", "ES256", "EdDSA", "PS256", "RS512", "ES384"] {
                let token = signer.token_with(&json!({ "alg": algorithm, "kid": id }), &claims());
                let belongs = matches!((signer.algorithm(), id), ("RS256", "rsa") | ("ES256", "ec") | ("EdDSA", "ed"));
                assert_eq!(
                    world.accepts(&token).await,
                    belongs && algorithm == signer.algorithm(),
                    "{algorithm} by {id}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_algorithm_that_the_tenant_does_not_list_is_refused() {
    let signer = Signer::rsa();
    let world = World::with(&[signer.public(Some("k"))]);
    let tenant = tenant_with("acme", &json!({ "algorithms": ["ES256"] }));
    assert_eq!(world.verify(&tenant, &signer.token("k", &claims())).await.unwrap(), None);
    assert_eq!(world.fetches(), 0, "and nothing is fetched for it");
}

/// `jwk`, `jku`, `x5u` and `x5c` would let whoever writes a token say which key it is checked with.
#[tokio::test]
async fn a_key_that_a_token_brings_along_is_not_looked_at() {
    let (issuer, attacker) = (Signer::p256(), Signer::p256());
    let world = World::with(&[issuer.public(Some("k"))]);
    let brought = [
        ("jwk", attacker.public(Some("k"))),
        ("jku", json!("https://attacker.example/keys")),
        ("x5u", json!("https://attacker.example/certificate")),
        ("x5c", json!(["MIIB"])),
    ];
    world.publish("attacker", &[attacker.public(Some("k"))]);
    for (name, value) in brought {
        let mut header = json!({ "alg": "ES256", "kid": "k" });
        header[name] = value;
        assert!(!world.accepts(&attacker.token_with(&header, &claims())).await, "{name}");
        assert!(world.accepts(&issuer.token_with(&header, &claims())).await, "{name} does not count");
    }
    assert_eq!(world.fetches(), 1, "nothing but the tenant's own keys is fetched");
}

#[tokio::test]
async fn an_extension_that_must_be_understood_is_not() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    for critical in [json!(["b64"]), json!(["exp"]), json!([]), json!(null), json!("b64")] {
        let header = json!({ "alg": "EdDSA", "kid": "k", "crit": critical, "b64": false });
        assert!(!world.accepts(&signer.token_with(&header, &claims())).await, "{critical}");
    }
}

#[tokio::test]
async fn a_type_that_the_tenant_demands_must_be_there() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let tenant = tenant_with("acme", &json!({ "requiredType": "at+jwt" }));
    for (kind, good) in [(json!("at+jwt"), true), (json!("JWT"), false), (json!(null), false)] {
        let header = json!({ "alg": "EdDSA", "kid": "k", "typ": kind });
        let verified = world.verify(&tenant, &signer.token_with(&header, &claims())).await.unwrap();
        assert_eq!(verified.is_some(), good, "{kind}");
    }
}

#[tokio::test]
async fn what_was_changed_after_it_was_signed_is_refused() {
    for signer in [Signer::rsa(), Signer::p256(), Signer::ed25519()] {
        let world = World::with(&[signer.public(Some("k"))]);
        let token = signer.token("k", &claims());
        let parts: Vec<&str> = token.split('.').collect();
        let mut other = claims();
        other["sub"] = "mallory".into();
        let forged = format!("{}.{}.{}", parts[0], encode(other.to_string()), parts[2]);
        assert!(!world.accepts(&forged).await);
        let resigned = format!("{}.{}.{}", parts[0], parts[1], encode(signer.sign(b"something else")));
        assert!(!world.accepts(&resigned).await);
        for odd in
            ["", ".", "..", "...", "a.b.c", &token[..token.len() - 4], &format!("{token}="), &format!("{token}.x")]
        {
            assert!(!world.accepts(odd).await, "{odd}");
        }
        assert!(!world.accepts(&format!("{}.{}", parts[0], parts[1])).await);
    }
}

#[tokio::test]
async fn claims_are_judged_by_the_core() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    for (name, value) in [
        ("exp", json!(SECONDS - 61)),
        ("nbf", json!(SECONDS + 61)),
        ("aud", json!("other")),
        ("iss", json!("https://other.example/")),
        ("sub", json!("")),
    ] {
        let mut wrong = claims();
        wrong[name] = value;
        assert!(!world.accepts(&signer.token("k", &wrong)).await, "{name}");
    }
    for odd in [json!([]), json!("alice"), json!(null)] {
        assert!(!world.accepts(&signer.token("k", &odd)).await, "{odd}");
    }
}

#[tokio::test]
async fn a_token_of_another_tenants_issuer_is_refused() {
    let (ours, theirs) = (Signer::p256(), Signer::p256());
    let world = World::with(&[ours.public(Some("k"))]);
    world.publish("globex", &[theirs.public(Some("k"))]);
    let globex = tenant_with("globex", &json!({}));
    let token = theirs
        .token("k", &json!({ "iss": "https://globex.example/", "aud": "chat", "sub": "bob", "exp": SECONDS + 60 }));
    assert!(world.verify(&globex, &token).await.unwrap().is_some());
    assert!(!world.accepts(&token).await);
    // Not even where it claims to be ours: the other tenant's keys are no keys here.
    assert!(!world.accepts(&theirs.token("k", &claims())).await);
}

#[tokio::test]
async fn a_token_that_is_too_long_is_not_looked_at() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let padded = |length: usize| {
        let mut claims = claims();
        claims["padding"] = "x".repeat(length).into();
        signer.token("k", &claims)
    };
    assert!(world.accepts(&padded(5000)).await);
    let long = padded(MAX_TOKEN_BYTES);
    let fetches = world.fetches();
    assert!(!world.accepts(&long).await);
    let nested = format!("{}.{}.AAAA", encode("[".repeat(5000)), encode("[".repeat(1000)));
    assert!(!world.accepts(&nested).await);
    assert_eq!(world.fetches(), fetches);
}

#[tokio::test]
async fn keys_without_names_are_not_guessed_among() {
    let (one, other) = (Signer::ed25519(), Signer::ed25519());
    let world = World::with(&[one.public(None), other.public(None)]);
    for signer in [&one, &other] {
        assert!(!world.accepts(&signer.token_with(&json!({ "alg": "EdDSA" }), &claims())).await);
        assert!(!world.accepts(&signer.token("k", &claims())).await);
    }
}

#[tokio::test]
async fn a_tenant_of_another_mode_has_no_tokens() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let keys_only = Tenant::from_json(r#"{ "tenantId": "acme", "aiModels": { "chat": "m" } }"#).unwrap();
    assert_eq!(world.verify(&keys_only, &signer.token("k", &claims())).await.unwrap(), None);
}
