// Node's fetch (undici), given up on by AbortSignal.timeout and repeated by
// the app.
const env = process.env;
const headers = { Authorization: `Bearer ${env.CLIENT_TOKEN}`, 'Content-Type': 'application/json' };
if (env.CLIENT_KEY) headers['Idempotency-Key'] = env.CLIENT_KEY;

if (env.CLIENT_WARM) await (await fetch(env.CLIENT_URL + '/api/v2/users/me', { headers })).text();

let result;
for (let i = 0; i < Number(env.CLIENT_TRIES); i++) {
	try {
		const answer = await fetch(env.CLIENT_URL + env.CLIENT_PATH, {
			method: 'POST',
			headers,
			body: env.CLIENT_BODY,
			signal: AbortSignal.timeout(Number(env.CLIENT_TIMEOUT) * 1000),
		});
		result = `${answer.status}\n${await answer.text()}`;
		if (answer.status < 500) break;
	} catch (e) {
		result = `error ${e.name} ${e.message} ${e.cause?.message ?? ''}`;
	}
}
console.log(result);
