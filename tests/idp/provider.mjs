// A real, certified OpenID Connect provider (oidc-provider) with accounts of the test's own, which can be told to lie.
//
//   node provider.mjs < config.json      prints one line of JSON, {"issuer": …, "control": …}, when it listens
//
// config: {"issuer": "https://localhost:4443", "address": "127.0.0.1", "control_port": 4444, "certificate": path, "key": path,
//          "clients": [oidc-provider's client metadata], "accounts": {"login name": {claim: value}}}
// control, on loopback: POST / with {"mode": name of MODES, "accounts": {…}} changes how it behaves; each member is optional.
//          GET / answers {"mode", "requests": {"discovery": 1, "jwks": 2, …}, "issued": [codes and tokens]}.
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:https';

import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose';
import Provider from 'oidc-provider';


const config = JSON.parse(readFileSync(0, 'utf8'));
const port = Number(new URL(config.issuer).port || 443);
const now = () => Math.floor(Date.now() / 1000);
const state = { mode: 'honest', accounts: config.accounts, requests: {}, issued: [] };

// ---- keys: the provider's own, and some of nobody's

async function key(alg, kid) {
  const pair = await generateKeyPair(alg, { extractable: true });
  return { alg, kid, ...pair, jwk: { ...(await exportJWK(pair.privateKey)), alg, kid, use: 'sig' } };
}
const own = await key('RS256', 'own');
const second = await key('ES256', 'second');
const foreign = await key('RS256', 'foreign');

// ---- lies about the ID token; each takes the honest claims and returns a token

const sign = (claims, by = own, kid = by.kid) =>
  new SignJWT(claims).setProtectedHeader({ alg: by.alg, kid, typ: 'JWT' }).sign(by.privateKey);
const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const hs256 = (claims, secret) =>
  new SignJWT(claims).setProtectedHeader({ alg: 'HS256', kid: own.kid }).sign(new TextEncoder().encode(secret));

const TOKENS = {
  resigned: (claims) => sign(claims),
  claims_in_token: (claims) => sign({ ...state.accounts[claims.sub], ...claims }),
  nonce: (claims) => sign({ ...claims, nonce: randomBytes(16).toString('hex') }),
  no_nonce: ({ nonce, ...claims }) => sign(claims),
  expired: (claims) => sign({ ...claims, iat: claims.iat - 7200, exp: now() - 120 }),
  from_the_future: (claims) => sign({ ...claims, iat: now() + 600 }),
  not_yet: (claims) => sign({ ...claims, nbf: now() + 600 }),
  audience: (claims) => sign({ ...claims, aud: 'another-client' }),
  two_audiences: (claims) => sign({ ...claims, aud: [claims.aud, 'another-client'] }),
  authorized_party: (claims) => sign({ ...claims, azp: 'another-client' }),
  issuer: (claims) => sign({ ...claims, iss: 'https://elsewhere.example' }),
  no_subject: ({ sub, ...claims }) => sign(claims),
  access_token_hash: (claims) => sign({ ...claims, at_hash: createHash('md5').update('x').digest('base64url') }),
  unknown_key: (claims) => sign(claims, foreign),
  forged: (claims) => sign(claims, foreign, own.kid),
  changed: async (claims) => {
    const [header, , signature] = (await sign(claims)).split('.');
    return [header, encoded({ ...claims, sub: 'somebody-else' }), signature].join('.');
  },
  none: (claims) => `${encoded({ alg: 'none' })}.${encoded(claims)}.`,
  hs256_secret: (claims, client) => hs256(claims, client.clientSecret),
  hs256_public_key: async (claims) => hs256(claims, await exportSPKI(own.publicKey)),
  rubbish_token: () => 'rubbish',
};

// ---- lies about the rest

const ANSWERS = {
  discovery: {
    discovery_html: (ctx) => { ctx.type = 'html'; ctx.body = '<h1>Maintenance</h1>'; },
    discovery_issuer: (ctx) => { ctx.body.issuer += '/'; },
    discovery_http: (ctx) => { ctx.body.token_endpoint = ctx.body.token_endpoint.replace('https:', 'http:'); },
    discovery_redirect: (ctx) => { ctx.redirect('https://localhost:1/elsewhere'); },
    discovery_huge: (ctx) => { ctx.body.padding = 'x'.repeat(2 ** 21); },
    discovery_only_post: (ctx) => { ctx.body.token_endpoint_auth_methods_supported = ['private_key_jwt', 'client_secret_post']; },
    discovery_no_secret: (ctx) => { ctx.body.token_endpoint_auth_methods_supported = ['private_key_jwt']; },
    discovery_no_algorithms: (ctx) => { ctx.body.id_token_signing_alg_values_supported = ['none', 'HS256']; },
  },
  token: {
    token_html: (ctx) => { ctx.type = 'html'; ctx.body = '<h1>Oops</h1>'; },
    token_error: (ctx) => { ctx.status = 500; ctx.body = 'oops'; },
    no_token: (ctx) => { delete ctx.body.id_token; },
  },
  userinfo: {
    userinfo_of_another: (ctx) => { ctx.body.sub = 'somebody-else'; },
    userinfo_html: (ctx) => { ctx.type = 'html'; ctx.body = '<h1>Oops</h1>'; },
    email_unverified: (ctx) => { ctx.body.email_verified = false; },
  },
  jwks: { jwks_html: (ctx) => { ctx.type = 'html'; ctx.body = '<h1>Oops</h1>'; } },
};

async function lie(ctx, next) {
  await next();
  const { route, client } = ctx.oidc ?? {};
  const sent = ctx.response.get('Location') ?? '';
  if (sent.includes('code=')) state.issued.push(new URL(sent).searchParams.get('code'));
  state.requests[route] = (state.requests[route] ?? 0) + 1;
  if (ctx.status !== 200) return;
  if (route === 'token' && state.mode in TOKENS) {
    const claims = JSON.parse(Buffer.from(ctx.body.id_token.split('.')[1], 'base64url'));
    ctx.body.id_token = await TOKENS[state.mode](claims, client);
  }
  ANSWERS[route]?.[state.mode]?.(ctx);
  if (route === 'token') state.issued.push(...[ctx.body.id_token, ctx.body.access_token, ctx.body.refresh_token].filter(Boolean));
}

// ---- the provider

const page = (title, form) => `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${title}</title></head>
<body><main><h1>${title}</h1>${form}</main></body></html>`;

const provider = new Provider(config.issuer, {
  clients: config.clients,
  jwks: { keys: [own.jwk, second.jwk] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username', 'groups', 'realm_access', 'department'],
  },
  features: {
    devInteractions: { enabled: false },
    rpInitiatedLogout: {
      logoutSource: (ctx, form) => {
        ctx.body = page('Sign out', `${form}<button type="submit" form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
      postLogoutSuccessSource: (ctx) => { ctx.body = page('Signed out', ''); },
    },
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (ctx, id) => state.accounts[id] && { accountId: id, claims: () => ({ sub: id, ...state.accounts[id] }) },
  // everybody has consented to everything
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId });
    grant.addOIDCScope('openid profile email');
    await grant.save();
    return grant;
  },
  renderError: (ctx, out) => {
    ctx.type = 'html';
    ctx.body = page('Error', `<p>${String(out.error).replace(/[^a-z_]/g, '')}</p>`);
  },
});
provider.use(lie);

async function interaction(request, response) {
  const answer = (status, text) => response.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8' }).end(text);
  const form = page('Sign in to the provider',
    '<form method="post"><label>User name <input name="login" autofocus></label> <button type="submit">Sign in</button></form>');
  await provider.interactionDetails(request, response);
  if (request.method !== 'POST') return answer(200, form);
  let body = '';
  for await (const piece of request) body += piece;
  const fields = new URLSearchParams(body);
  if (fields.has('cancel')) {
    return provider.interactionFinished(request, response, { error: 'access_denied' });
  }
  const accountId = fields.get('login');
  if (!Object.hasOwn(state.accounts, accountId ?? '')) return answer(401, form);
  return provider.interactionFinished(request, response, { login: { accountId } });
}

// ---- servers

const callback = provider.callback();
const server = createServer({ cert: readFileSync(config.certificate), key: readFileSync(config.key) }, (request, response) => {
  if (!request.url.startsWith('/interaction/')) return callback(request, response);
  return interaction(request, response).catch((error) => response.writeHead(400).end(error.name));
});
const listen = () => new Promise((done) => { server.listen(port, config.address ?? '127.0.0.1', done); });
const close = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });

const known = ['honest', 'down', ...Object.keys(TOKENS), ...Object.values(ANSWERS).flatMap(Object.keys)];

async function change({ mode = state.mode, accounts = state.accounts }) {
  if (!known.includes(mode)) throw new Error(`no mode ${mode}`);
  Object.assign(state, { mode, accounts });
  if (mode === 'down' && server.listening) await close();
  if (mode !== 'down' && !server.listening) await listen();
}

const control = createHttpServer(async (request, response) => {
  try {
    let body = '';
    for await (const piece of request) body += piece;
    if (request.method === 'POST') await change(JSON.parse(body));
    response.end(JSON.stringify({ mode: state.mode, requests: state.requests, issued: state.issued }));
  } catch (error) {
    response.writeHead(400).end(JSON.stringify({ error: error.message }));
  }
});

await listen();
// a test may keep its connection for as long as it likes
control.keepAliveTimeout = 0;
control.listen(config.control_port, '127.0.0.1', () => {
  console.log(JSON.stringify({ issuer: config.issuer, control: `http://127.0.0.1:${config.control_port}` }));
});
