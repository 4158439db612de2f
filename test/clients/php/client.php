<?php
// PHP's curl extension, with one handle for all requests, repeated by the app.
$headers = ['Authorization: Bearer ' . getenv('CLIENT_TOKEN'), 'Content-Type: application/json'];
if (getenv('CLIENT_KEY') !== '') {
	$headers[] = 'Idempotency-Key: ' . getenv('CLIENT_KEY');
}
$curl = curl_init();
curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_HTTPHEADER => $headers]);
if (getenv('CLIENT_WARM') !== '') {
	curl_setopt($curl, CURLOPT_URL, getenv('CLIENT_URL') . '/api/v2/users/me');
	curl_exec($curl);
}
curl_setopt_array($curl, [
	CURLOPT_URL => getenv('CLIENT_URL') . getenv('CLIENT_PATH'),
	CURLOPT_POST => true,
	CURLOPT_POSTFIELDS => getenv('CLIENT_BODY'),
	CURLOPT_TIMEOUT_MS => (int)(1000 * (float)getenv('CLIENT_TIMEOUT')),
]);
$result = '';
for ($i = 0; $i < (int)getenv('CLIENT_TRIES'); $i++) {
	$body = curl_exec($curl);
	if ($body === false) {
		$result = 'error ' . curl_error($curl);
		continue;
	}
	$status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
	$result = "$status\n$body";
	if ($status < 500) {
		break;
	}
}
echo $result, "\n";
