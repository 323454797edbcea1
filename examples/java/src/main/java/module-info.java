/** A world clock over HTTP, on nothing but the JDK. */
module worldclock {
    requires jdk.httpserver;
}
