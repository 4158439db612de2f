// Genesys' SDK for JavaScript. It repeats nothing by itself, so the app does.
const sdk = require('purecloud-platform-client-v2');
const env = process.env;
const url = new URL(env.CLIENT_URL);

async function main() {
	const client = sdk.ApiClient.instance;
	client.setGateway({
		host: url.hostname,
		protocol: 'http',
		port: Number(url.port),
		path_params_login: '',
		path_params_api: '',
	});
	await client.loginClientCredentialsGrant(env.CLIENT_ID, env.CLIENT_SECRET);
	client.getHttpClient().setTimeout(Number(env.CLIENT_TIMEOUT) * 1000); // 16000 unless set

	if (env.CLIENT_WARM) await new sdk.UsersApi().getUsersMe();
	const api = new sdk.IntegrationsApi();
	const options = env.CLIENT_KEY ? { customHeaders: { 'Idempotency-Key': env.CLIENT_KEY } } : {};
	let result;
	for (let i = 0; i < Number(env.CLIENT_TRIES); i++) {
		try {
			const answer = await api.postIntegrationsActionExecute(env.CLIENT_ACTION, JSON.parse(env.CLIENT_BODY), options);
			return `200\n${JSON.stringify(answer)}`;
		} catch (e) {
			if (e === undefined || e instanceof Error) {
				// Of an answer that was cut, the SDK tells nothing at all.
				result = `error ${e?.code ?? ''} ${e?.message ?? 'rejected with undefined'}`;
				continue;
			}
			result = `${e.status}\n${JSON.stringify(e)}`; // the ErrorBody, as the SDK hands it on
			if (e.status < 500) break;
		}
	}
	return result;
}

main().then(console.log, (e) => console.log(`error ${e.message ?? JSON.stringify(e)}`));
