// The resource's side of DPoP (RFC 9449 sections 4.3, 7 and 9), judged by jose: signature, typ, htm, htu, ath, iat, jti, nonce.

import { createHash, randomBytes } from 'node:crypto';
import { EmbeddedJWK, calculateJwkThumbprint, jwtVerify } from 'jose';

const ALGORITHMS = ['ES256', 'ES384', 'EdDSA', 'RS256', 'PS256'];
const WINDOW = 60; // seconds

export class ProofJudge {
  #nonce = randomBytes(16).toString('base64url');
  #seen = new Set();
  accepted = 0;
  refused = [];

  get nonce() {
    return this.#nonce;
  }

  rotate() {
    this.#nonce = randomBytes(16).toString('base64url');
  }

  // Throws { code, message } unless the request's one proof is good and by the key that the token is bound to.
  async verify(request, url, token, jkt) {
    try {
      await this.#judge(request, url, token, jkt);
      this.accepted += 1;
    } catch (error) {
      const refusal = { code: error.code === 'use_dpop_nonce' ? error.code : 'invalid_dpop_proof', message: error.message };
      this.refused.push(`${refusal.code}: ${refusal.message}`);
      throw refusal;
    }
  }

  async #judge(request, url, token, jkt) {
    const proofs = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
      if (request.rawHeaders[i].toLowerCase() === 'dpop') proofs.push(request.rawHeaders[i + 1]);
    }
    if (proofs.length !== 1) throw new Error(`${proofs.length} proofs`);
    const { payload, protectedHeader } = await jwtVerify(proofs[0], EmbeddedJWK, {
      typ: 'dpop+jwt',
      algorithms: ALGORITHMS,
      requiredClaims: ['jti', 'htm', 'htu', 'iat', 'ath'],
    });
    if (payload.htm !== request.method) throw new Error('htm');
    if (payload.htu !== url.split('?')[0]) throw new Error(`htu ${payload.htu}, expected ${url}`);
    if (payload.ath !== createHash('sha256').update(token).digest('base64url')) throw new Error('ath');
    if (Math.abs(payload.iat - Date.now() / 1000) > WINDOW) throw new Error('iat');
    if ((await calculateJwkThumbprint(protectedHeader.jwk)) !== jkt) throw new Error('another key than the token is bound to');
    if (payload.nonce !== this.#nonce) throw Object.assign(new Error('nonce'), { code: 'use_dpop_nonce' });
    if (this.#seen.has(payload.jti)) throw new Error('replayed');
    this.#seen.add(payload.jti);
  }
}
