import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Prints what a URL answers. HttpClient asks no proxy unless it is told to ask the machine's. */
class Fetch {
    public static void main(String[] arguments) throws Exception {
        var builder = HttpClient.newBuilder();
        if (arguments[1].equals("proxy")) {
            builder.proxy(ProxySelector.getDefault());
        }
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        try (var client = builder.build()) {
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.print(answer.body());
            System.exit(answer.statusCode() == 200 ? 0 : 1);
        }
    }
}
