import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

/** Java's own HTTP client (java.net.http), repeated by the app. */
public class Client {
	public static void main(String[] args) throws Exception {
		HttpClient client = HttpClient.newHttpClient();
		if (!env("CLIENT_WARM").isEmpty()) {
			client.send(request("/api/v2/users/me").GET().build(), HttpResponse.BodyHandlers.ofString());
		}
		HttpRequest.Builder order = request(env("CLIENT_PATH"))
				.header("Content-Type", "application/json")
				.POST(HttpRequest.BodyPublishers.ofString(env("CLIENT_BODY")))
				.timeout(Duration.ofMillis((long) (Double.parseDouble(env("CLIENT_TIMEOUT")) * 1000)));
		if (!env("CLIENT_KEY").isEmpty()) {
			order.header("Idempotency-Key", env("CLIENT_KEY"));
		}
		String result = "";
		for (int i = 0; i < Integer.parseInt(env("CLIENT_TRIES")); i++) {
			try {
				HttpResponse<String> answer = client.send(order.build(), HttpResponse.BodyHandlers.ofString());
				result = answer.statusCode() + "\n" + answer.body();
				if (answer.statusCode() < 500) {
					break;
				}
			} catch (java.io.IOException e) {
				result = "error " + e;
			}
		}
		System.out.println(result);
	}

	private static HttpRequest.Builder request(String path) {
		return HttpRequest.newBuilder(URI.create(env("CLIENT_URL") + path))
				.header("Authorization", "Bearer " + env("CLIENT_TOKEN"));
	}

	private static String env(String name) {
		return System.getenv(name);
	}
}
