// The port that the service listens on, and that the health check asks.
export const port = Number(process.env.PORT ?? 8080);
